"""Profile of the objective in each parameter: fix it, refit the rest, and see how far it may move
before the fit is worse.

The rise is judged as a quasi-likelihood ratio: for an M-estimator with penalty rho and slope psi, 2
(rho - rho_min) E[psi'] / E[psi^2] is chi-squared with one degree of freedom (Schrader and
Hettmansperger 1980; Huber 1981, section 7.10), here with the quantile of Student's t, for the noise
is estimated too. For sums of squares that is the classical interval. Where the noise is uneven, so
that the sandwich variance is the larger one, more rise is allowed in proportion. A refit that has
not converged lies above the profile by an unknown amount: beyond what is allowed, the interval is
open on its side. A parameter is identified when its interval is closed on both sides, is no wider
than `WIDE`, and holds no other minimum of the objective out of reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scaling.fit.bootstrap import LARGE, part_of
from scaling.fit.estimate import LawFit
from scaling.fit.laws.law import Param
from scaling.fit.newton import Problem, Rows, expand, minimise
from scaling.fit.result import ProfileInterval
from scaling.fit.significance import student

Array = np.ndarray
INITIAL_REACH, GROWTH = 0.5, 1.5  # of steps outward, in half-widths of the quadratic interval
ROUNDS, REFINED = 14, 2  # steps outward; then inward
WIDE = {"value": 10.0, "coefficient": 1e2, "crossing": 1e6}  # hi / lo of what is not known
EXACT = 1e-10  # residuals below this are rounding: the data hold no noise
CLOSE = 0.02  # of the rise at the end of an interval
SMOOTH = 0.1  # delta of the profile of least absolute deviations, in median residuals


@dataclass(frozen=True)
class _Rays(Rows):
    """Sides of parameters: `row` (R, P) says what is followed, over the place of theta marked in
    `scale` where there is one; `at` (R,) is the last place where the rise, in units of what is
    `allowed`, was below one, its natural coordinate (the value, or its log), with `rise` and
    `theta`, raw; `above_at` and `above_rise` are the first where it was not, NaN before; the rise
    stays NaN where a refit has not converged. `along` is d theta / d at where the objective is
    quadratic.
    """

    place: Array
    row: Array
    scale: Array
    along: Array
    allowed: Array
    at: Array
    rise: Array
    theta: Array
    above_at: Array
    above_rise: Array

    def crossing(self) -> Array:
        """Where the rise passes one, by interpolation of its root; NaN where it does not."""
        low, high = np.sqrt(np.maximum(self.rise, 0.0)), np.sqrt(self.above_rise)
        return self.at + (self.above_at - self.at) * (1.0 - low) / (high - low)

    def pinned(self, theta: Array, at: Array) -> Array:
        """Raw theta (R, P) with the parameters put at `at`."""
        theta, each = theta.copy(), np.arange(len(theta))
        unit = np.where(self.scale.any(1), (self.scale * theta).sum(1), 1.0)
        theta[each, self.place] += at * unit - (self.row * theta).sum(1)
        return theta


def profile(fit: LawFit, ci: float = 0.95) -> dict[str, ProfileInterval]:
    """The interval of each free parameter, open on a side that the data leave open; of a large
    table that of a part of it, its distance from the optimum scaled to what all of it says.
    """
    law = fit.law
    if len(fit.data) > LARGE:
        near, share = part_of(fit)
        profiles = {}
        for name, each in profile(near, ci).items():
            is_log = law.params[law.index(name)].log
            to, back = (np.log, np.exp) if is_log else (np.asarray, np.asarray)
            ends = to(np.array([each.lo, each.hi], float)) - to(near.values[name])
            lo, hi = back(to(fit.values[name]) + share * ends)
            profiles[name] = ProfileInterval(lo=lo, hi=hi, identified=np.isfinite(hi - lo))
        return profiles
    # weights are relative: of mean one they count runs
    problem = replace(fit.problem, weight=fit.data.weight / fit.data.weight.mean())
    best, names = problem.centred(fit.theta), [law.names[i] for i in problem.free]
    residual = problem.residual(best)
    typical = float(np.median(np.abs(residual)))
    if typical < EXACT * (1.0 if problem.objective.log else float(np.median(problem.loss))):
        exact = {name: fit.values[name] for name in names}
        return {name: ProfileInterval(lo=x, hi=x, identified=True) for name, x in exact.items()}
    if problem.objective.kind == "lad":
        problem = replace(problem, delta=SMOOTH * typical)
        best = minimise(problem, best[None]).theta[0]
    profiler = _Profiler(problem, best, residual, ci)
    ends, allowed = profiler.ends(problem.free, np.eye(len(best))[problem.free])
    profiles, wide = {}, []
    for place, name, (lo, hi), rise in zip(problem.free, names, ends, allowed, strict=True):
        profiles[name], is_wide = _read(fit, law.params[place], lo, hi, rise)
        # the size of a coefficient depends on units: where its interval is wide it is judged by its
        # term at the data's centre
        if is_wide and law.params[place].of_loss:
            wide.append(place)
    if wide:
        ends, _ = profiler.ends(np.array(wide), problem.centre[wide])
        for place, (lo, hi) in zip(wide, ends, strict=True):
            known = bool(hi - lo < np.log(WIDE["coefficient"]))
            name = law.names[place]
            profiles[name] = profiles[name].model_copy(update={"identified": known})
    return profiles


class _Profiler:
    """What the profiles of one fit share: the optimum `best`, centred, the rise that is `allowed`
    above it, and the raw covariance (P, P) in units of the noise, when that is `even` and when it
    is as `uneven` as the squared slopes of the penalty are (the sandwich of Huber 1967).
    """

    def __init__(self, problem: Problem, best: Array, residual: Array, ci: float) -> None:
        self.problem, self.best, self.inverse = problem, best, np.linalg.inv(problem.centre)
        self.floor = float(expand(problem, best[None]).value[0])
        free, weight, kind = problem.free, problem.weight, problem.objective.kind
        squares = problem.objective.smooth(residual, problem.delta)[1] ** 2
        total = max(float(weight.sum()) - len(free), 1.0)
        # psi' of a penalty with a kink is a density at nought, counted in a window of half the
        # median residual; the points that the fit passes through are left out of the count
        size = np.abs(residual)
        window = max(problem.delta, float(np.median(size)) / 2)
        near = max(float(weight[size <= window].sum()) - len(free), 1.0) / total
        peak = 1.0 if kind == "huber" else 1 / problem.delta
        self.bend = 2.0 if kind == "mse" else peak * near * problem.delta / window
        quantile = student(ci, weight.sum() - len(free))
        self.allowed = quantile**2 / 2 * float(weight @ squares) / total / self.bend
        gradient = problem.bound(best[None]).gradient[0, free] * (
            1.0 if problem.objective.log else problem.loss
        )
        inner = (gradient * weight) @ gradient.T
        unit = 1 / np.sqrt(np.maximum(np.diag(inner), 1e-300))  # a parameter may be of any size
        inner = inner * np.outer(unit, unit) + 1e-10 * np.eye(len(free))
        unevenness = squares / np.average(squares, weights=weight)
        spread = self.inverse[:, free] @ (np.linalg.inv(inner) * np.outer(unit, unit))
        self.even = spread @ self.inverse[:, free].T
        self.uneven = spread @ ((gradient * weight * unevenness) @ gradient.T) @ spread.T

    def ends(self, places: Array, row: Array) -> tuple[Array, Array]:
        """Where the rise of F parameters passes what is allowed (F, 2), downward first, and the
        rise that is allowed (F,). A parameter is the value at its place in theta, or its log, over
        the exponent that scales it; `row` (F, P) is that place, or its centred coordinate. An end
        is NaN where the rise does not pass.
        """
        problem, raw = self.problem, self.problem.raw(self.best)
        scale, limits = np.zeros_like(row), np.tile([-np.inf, np.inf], (len(row), 1))
        for k in np.flatnonzero(np.count_nonzero(row, axis=1) == 1):
            param = problem.law.params[places[k]]
            if param.scaled_by:
                scale[k, problem.law.index(param.scaled_by)] = 1.0
            elif np.count_nonzero(problem.centre[places[k]]) == 1:  # bounds that know no units
                limits[k] = param.bounds
        unit = np.where(scale.any(1), scale @ raw, 1.0)
        at = row @ raw / unit
        slope = (row - at[:, None] * scale) / unit[:, None]
        variance = np.maximum(((slope @ self.even) * slope).sum(1), 1e-300)
        uneven = ((slope @ self.uneven) * slope).sum(1)
        allowed = self.allowed * np.maximum(1.0, uneven / variance)
        # where a quadratic objective would have risen by what is allowed
        width = np.sqrt(2 * allowed / self.bend * variance)
        along = slope @ self.even / variance[:, None]
        both = np.arange(len(row)).repeat(2)
        rays = _Rays(
            places[both],
            row[both],
            scale[both],
            along[both],
            allowed[both],
            at[both],
            np.zeros(len(both)),
            np.repeat(raw[None], len(both), 0),
            np.full(len(both), np.nan),
            np.full(len(both), np.nan),
        )
        sign, limit = np.tile([-1.0, 1.0], len(row)), limits.ravel()
        for reach in INITIAL_REACH * GROWTH ** np.arange(ROUNDS):
            target = sign * np.minimum(sign * at[both] + width[both] * reach, sign * limit)
            self._refit(rays, np.isnan(rays.above_at) & (rays.at != limit), target)
        for _ in range(REFINED):
            unknown = ~np.isnan(rays.above_at) & np.isnan(rays.above_rise)  # from nearer by
            target = np.where(unknown, (rays.at + rays.above_at) / 2, rays.crossing())
            self._refit(rays, unknown | (rays.above_rise > 1.0 + CLOSE), target)
        return rays.crossing().reshape(-1, 2), allowed

    def _refit(self, rays: _Rays, chosen: Array, target: Array) -> None:
        """Refit with the parameters of the chosen rays fixed at their targets, from the last place
        before these, and note the rise there.
        """
        rows = np.flatnonzero(chosen)
        if not len(rows):
            return
        problem, inverse, ray, at = self.problem, self.inverse, rays.take(rows), target[rows]

        def start(theta: Array) -> Array:
            inside = np.clip(ray.pinned(theta, at) @ problem.centre.T, problem.lower, problem.upper)
            return ray.pinned(inside @ inverse.T, at) @ problem.centre.T

        pins = (ray.row - at[:, None] * ray.scale) @ inverse
        moved = ray.theta + ray.along * (at - ray.at)[:, None]
        ends = minimise(problem, start(moved), pins=pins)
        left = np.flatnonzero(~ends.converged)  # these from the place before itself
        again = minimise(problem, start(ray.theta)[left], pins=pins[left])
        lower = again.value < ends.value[left]
        ends.put(left[lower], again.take(lower))
        rise = (ends.value - self.floor) / ray.allowed
        below = rise < 1.0  # the profile itself too, where a refit has not converged
        rise[~below & ~ends.converged] = np.nan
        above = ~below & (ends.converged | np.isnan(ray.above_rise))
        rays.above_at[rows[above]], rays.above_rise[rows[above]] = at[above], rise[above]
        rays.at[rows[below]], rays.rise[rows[below]] = at[below], rise[below]
        rays.theta[rows[below]] = (ends.theta @ inverse.T)[below]


def _read(
    fit: LawFit, param: Param, lo: float, hi: float, allowed: float
) -> tuple[ProfileInterval, bool]:
    """The interval, widened to the other minima that are as good, and whether it is closed, but too
    wide to be knowledge.
    """
    if param.log:
        lo, hi = np.exp(np.minimum([lo, hi], 700.0))
    kind = ("crossing" if param.scaled_by else "coefficient") if param.log else "value"
    closed, identified = np.isfinite(hi - lo), lo > 0 and hi / lo < WIDE[kind]
    best = fit.starts.minima[0].value or 0.0
    rivals = [
        float(one.params[param.name] or 0.0)
        for one in fit.starts.minima[1:]
        if ((one.value or 0.0) - best) / fit.data.weight.mean() < allowed
    ]
    if any(rival < lo or rival > hi for rival in rivals):
        lo, hi = np.minimum(lo, min(rivals)), np.maximum(hi, max(rivals))
        closed = identified = False
    return ProfileInterval(lo=lo, hi=hi, identified=bool(identified)), bool(
        closed and not identified
    )
