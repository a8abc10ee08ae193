"""Profile of the objective in each parameter: fix it, refit the rest, and see how far it may move
before the fit is worse.

The rise is judged as a quasi-likelihood ratio: for an M-estimator with penalty rho and slope psi, 2
(rho - rho_min) E[psi'] / E[psi^2] is chi-squared with one degree of freedom (Schrader and
Hettmansperger 1980; Huber 1981, section 7.10), here with the quantile of Student's t, for the noise
is estimated too. For sums of squares that is the classical interval. Where the noise is uneven, so
that the sandwich variance is the larger one, more rise is allowed in proportion. A parameter is
identified when its interval is closed on both sides, is no wider than `WIDE`, and holds no other
minimum of the objective out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaling.fit.bootstrap import LARGE, PART
from scaling.fit.estimate import refit_from_optimum
from scaling.fit.law_fit import LawFit
from scaling.fit.newton import Problem, expand, minimise
from scaling.fit.result import ProfileInterval
from scaling.fit.significance import student

Array = np.ndarray
INITIAL_REACH, GROWTH = 0.5, 1.5  # of steps outward, in half-widths of the quadratic interval
ROUNDS, REFINED = 14, 2  # steps outward; then inward
WIDE = {"value": 10.0, "coefficient": 1e2, "crossing": 1e6}  # hi / lo of what is not known
EXACT = 1e-10  # residuals below this are rounding: the data hold no noise
CLOSE = 0.02  # of the rise at the end of an interval
ENOUGH = 40  # steps a refit: what is left then is far less than CLOSE
SMOOTH = 0.1  # delta of the profile of least absolute deviations, in median residuals


@dataclass(frozen=True, eq=False)
class _Ray:
    """One side of one parameter: `row` (P,) says what is followed, over theta[`exponent`] where
    there is one; how far it may go, and where it has been: `at` its natural coordinate (the value,
    or its log), `rise` there and `theta`, raw. `along` is d theta / d at where the objective is
    quadratic.
    """

    place: int
    row: Array
    exponent: int | None
    sign: float
    width: float
    limit: float
    allowed: float
    along: Array
    at: list[float]
    rise: list[float]
    theta: list[Array]

    def bracket(self) -> int:
        """The first place on the ray where the rise has passed one; the number of places when it
        has not.
        """
        return next((k for k, rise in enumerate(self.rise) if rise >= 1.0), len(self.rise))

    def crossing(self) -> float | None:
        """Where the rise passes one, by interpolation of its root; None when it does not."""
        k = self.bracket()
        if k == len(self.rise):
            return None
        low, high = np.sqrt(max(self.rise[k - 1], 0.0)), np.sqrt(self.rise[k])
        return float(self.at[k - 1] + (self.at[k] - self.at[k - 1]) * (1.0 - low) / (high - low))

    def pinned(self, at: float, theta: Array) -> Array:
        """Raw theta with the ray's parameter put at `at`."""
        theta, target = theta.copy(), at if self.exponent is None else at * theta[self.exponent]
        theta[self.place] += target - self.row @ theta
        return theta


def profile(fit: LawFit, ci: float = 0.95) -> dict[str, ProfileInterval]:
    """The interval of each free parameter, open on a side that the data leave open; of a large
    table that of a part of it, drawn in to what all of it says.
    """
    if len(fit.data) > LARGE:
        return _of_a_part(fit, ci)
    # weights are relative: of mean one they count runs
    problem = replace(fit.problem, weight=fit.data.weight / fit.data.weight.mean())
    law, best = problem.law, problem.centred(fit.theta)
    residual = problem.residual(best)
    typical = float(np.median(np.abs(residual)))
    if typical < EXACT * (1.0 if problem.objective.log else float(np.median(problem.loss))):
        exact = {law.names[i]: fit.values[law.names[i]] for i in problem.free}
        return {
            name: ProfileInterval(lo=value, hi=value, identified=True)
            for name, value in exact.items()
        }
    if problem.objective.kind == "lad":
        problem = replace(problem, delta=SMOOTH * typical)
        best = minimise(problem, best[None]).theta[0]
    profiler = _Profiler(problem, best, residual, ci)
    rays = [ray for i in problem.free for ray in profiler.rays(i, np.eye(len(best))[i])]
    profiler.trace(rays)
    profiles, centred = {}, list[_Ray]()
    for down, up in zip(rays[::2], rays[1::2], strict=True):
        name = law.names[down.place]
        profiles[name], is_wide = _read(fit, down, up)
        # the size of a coefficient depends on units: where its interval is wide it is judged by its
        # term at the data's centre
        if is_wide and law.params[down.place].of_loss:
            centred += profiler.rays(down.place, problem.centre[down.place])
    profiler.trace(centred)
    for down, up in zip(centred[::2], centred[1::2], strict=True):
        name, (lo, hi) = law.names[down.place], (down.crossing(), up.crossing())
        known = lo is not None and hi is not None and hi - lo < np.log(WIDE["coefficient"])
        profiles[name] = profiles[name].model_copy(update={"identified": bool(known)})
    return profiles


def _of_a_part(fit: LawFit, ci: float) -> dict[str, ProfileInterval]:
    """Profiles of PART of the points about their own optimum, their distance from it scaled by
    sqrt(PART / n).
    """
    count = len(fit.data)
    near = refit_from_optimum(
        fit, fit.data.points.take(np.random.default_rng(0).choice(count, PART, replace=False))
    )
    share, profiles = np.sqrt(PART / count), {}
    for name, each in profile(near, ci).items():
        param = fit.law.params[fit.law.index(name)]
        to, back = (np.log, np.exp) if param.log else (float, float)
        best, at = (to(one.values[name]) for one in (fit, near))
        lo, hi = (
            None if end is None else float(back(best + share * (to(end) - at)))
            for end in (each.lo, each.hi)
        )
        is_closed = lo is not None and hi is not None
        profiles[name] = ProfileInterval(lo=lo, hi=hi, identified=bool(is_closed))
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
        inner += 1e-10 * np.diag(np.diag(inner))
        unevenness = squares / np.average(squares, weights=weight)
        spread = self.inverse[:, free] @ np.linalg.pinv(inner, hermitian=True)
        self.even = spread @ self.inverse[:, free].T
        self.uneven = spread @ ((gradient * weight * unevenness) @ gradient.T) @ spread.T

    def rays(self, place: int, row: Array) -> tuple[_Ray, _Ray]:
        """Both sides of a parameter, downward first; their width is where a quadratic objective
        would have risen by what is allowed. `row` (P,) is the parameter itself, or its centred
        coordinate.
        """
        problem, raw = self.problem, self.problem.raw(self.best)
        param, centred = problem.law.params[place], np.count_nonzero(row) > 1
        scale = "" if centred else param.scaled_by
        exponent = problem.law.index(scale) if scale else None
        at = row @ raw if exponent is None else raw[place] / raw[exponent]
        slope = row.copy()
        if exponent is not None:
            slope[exponent] = -at
            slope /= raw[exponent]
        variance = max(float(slope @ self.even @ slope), 1e-300)
        allowed = self.allowed * max(1.0, float(slope @ self.uneven @ slope) / variance)
        alone = np.count_nonzero(problem.centre[place]) == 1  # bounds that know no units
        bounds = param.bounds if alone and not scale and not centred else (-np.inf, np.inf)
        width = float(np.sqrt(2 * allowed / self.bend * variance))
        along, start = self.even @ slope / variance, float(at)
        down, up = (
            _Ray(place, row, exponent, sign, width, limit, allowed, along, [start], [0.0], [raw])
            for sign, limit in zip((-1.0, 1.0), bounds, strict=True)
        )
        return down, up

    def trace(self, rays: Sequence[_Ray]) -> None:
        """Follow each ray outward until the rise has passed one, then inward to where it does."""
        for reach in INITIAL_REACH * GROWTH ** np.arange(ROUNDS):
            self._refit_at(
                {
                    ray: ray.sign
                    * min(ray.sign * ray.at[0] + ray.width * reach, ray.sign * ray.limit)
                    for ray in rays
                    if ray.rise[-1] < 1.0 and ray.at[-1] != ray.limit
                }
            )
        for _ in range(REFINED):
            self._refit_at(
                {
                    ray: at
                    for ray in rays
                    if (at := ray.crossing()) is not None and ray.rise[ray.bracket()] > 1.0 + CLOSE
                }
            )

    def _refit_at(self, targets: Mapping[_Ray, float]) -> None:
        """Refit with each ray's parameter fixed at its target, from the nearest place before it,
        and note the rise there.
        """
        if not targets:
            return
        problem, inverse = self.problem, self.inverse
        starts, pins, places = [], [], []
        for ray, at in targets.items():
            k = sum(ray.sign * (at - been) > 0 for been in ray.at)
            before, moved = ray.theta[k - 1], ray.along * (at - ray.at[k - 1])
            for theta in (ray.pinned(at, before + moved), ray.pinned(at, before)):
                inside = inverse @ np.clip(problem.centre @ theta, problem.lower, problem.upper)
                starts.append(problem.centre @ ray.pinned(at, inside))
            off = 0.0 if ray.exponent is None else at * inverse[ray.exponent]
            pins.append(ray.row @ inverse - off)
            places.append(k)
        begun, across = np.array(starts), np.array(pins)
        ends = minimise(problem, begun[::2], pins=across, most=ENOUGH)
        left = np.flatnonzero(~ends.converged)  # these from the place before itself, with patience
        again = minimise(problem, begun[1::2][left], pins=across[left])
        lower = again.value < ends.value[left]
        ends.put(left[lower], again.take(lower))
        rises, thetas = ends.value - self.floor, ends.theta @ inverse.T
        for (ray, at), k, rise, theta in zip(targets.items(), places, rises, thetas, strict=True):
            ray.at.insert(k, at)
            ray.rise.insert(k, float(rise) / ray.allowed)
            ray.theta.insert(k, theta)


def _read(fit: LawFit, down: _Ray, up: _Ray) -> tuple[ProfileInterval, bool]:
    """The interval, widened to the other minima that are as good, and whether it is closed, but too
    wide to be knowledge.
    """
    param = fit.law.params[down.place]
    lo, hi = down.crossing(), up.crossing()
    if param.log:
        lo, hi = (None if end is None else float(np.exp(min(end, 700.0))) for end in (lo, hi))
    kind = ("crossing" if param.scaled_by else "coefficient") if param.log else "value"
    closed = lo is not None and hi is not None
    identified = lo is not None and hi is not None and lo > 0 and hi / lo < WIDE[kind]
    best = fit.starts.minima[0].value or 0.0
    rivals = [
        float(one.params[param.name] or 0.0)
        for one in fit.starts.minima[1:]
        if ((one.value or 0.0) - best) / fit.data.weight.mean() < down.allowed
    ]
    if any((lo is not None and rival < lo) or (hi is not None and rival > hi) for rival in rivals):
        lo, hi = lo and min(lo, *rivals), hi and max(hi, *rivals)
        closed = identified = False
    return ProfileInterval(lo=lo, hi=hi, identified=bool(identified)), closed and not identified
