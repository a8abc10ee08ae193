"""The bottom of one isoFLOP valley: loss against log size at equal compute, by a parabola, a cubic or Akima's interpolant.

Every method takes many rows of losses at once, so that a bootstrap asks the same question of each draw as of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scaling.errors import unknown

Array = np.ndarray
GRID = 41  # points of the curve that is drawn
FINE = 4001  # points on which the interpolant's minimum is sought; a draw makes do with a fifth
LEAST_FREE = 0.05  # 1 - leverage of a run that alone decides the curve


@dataclass(frozen=True)
class Bottoms:
    """Where R curves are lowest: log size `at` and `loss` (R,), NaN where refused; `reason` of the first row, "" if it has
    a bottom; `curve` (2, k) is its log size and loss.
    """

    at: Array
    loss: Array
    reason: str
    curve: Array


def bottoms(method: str, x: Array, y: Array) -> Bottoms:
    """The bottoms of losses y (R, n) at log sizes x (n,). A curve without a minimum inside the sizes has none.

    Raises ScalingError for an unknown method.
    """
    if method not in METHODS:
        raise unknown("valley method", method, METHODS)
    at, loss, curve = METHODS[method](x, np.atleast_2d(y))
    inside = (at > x.min()) & (at < x.max())
    reason = "" if inside[0] else _reason(method, at[0], x)
    return Bottoms(np.where(inside, at, np.nan), np.where(inside, loss, np.nan), reason, curve)


def _reason(method: str, at: float, x: Array) -> str:
    if np.isnan(at):
        return f"the fitted {method} is not convex" if method == "parabola" else f"the fitted {method} has no minimum"
    return f"the minimum lies at the edge, {'below the smallest' if at <= x.min() else 'above the largest'} size"


def scatter(x: Array, y: Array, method: str) -> tuple[Array, Array]:
    """The fitted curve (n,) at the runs and its residuals divided by sqrt(1 - leverage) (HC2).

    Akima's interpolant passes through every run, so its scatter is that about a cubic (about a parabola, of four runs).
    """
    degree = 2 if method == "parabola" or len(y) < 5 else 3
    design = np.vander(x - x.mean(), degree + 1, increasing=True)
    hat = design @ np.linalg.pinv(design)
    fitted = hat @ y
    residual = (y - fitted) / np.sqrt(np.maximum(1 - np.diag(hat), LEAST_FREE))
    return (y if method == "akima" else fitted), residual


def _powers(x: Array, y: Array, degree: int) -> Array:
    """Least-squares coefficients (degree + 1, R) of y (R, n) in powers of x - mean(x)."""
    return np.asarray(np.linalg.pinv(np.vander(x - x.mean(), degree + 1, increasing=True)) @ y.T)


def _drawn(x: Array, coefficients: Array) -> Array:
    grid = np.linspace(x.min(), x.max(), GRID)
    return np.array([grid, np.polynomial.polynomial.polyval(grid - x.mean(), coefficients)])


def _parabola(x: Array, y: Array) -> tuple[Array, Array, Array]:
    found = _powers(x, y, 2)
    c0, c1, c2 = found
    u = np.where(c2 > 0, -c1 / (2 * np.where(c2 > 0, c2, 1.0)), np.nan)
    return u + x.mean(), c0 + c1 * u / 2, _drawn(x, found[:, 0])


def _cubic(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """The root of the derivative at which the second derivative, 2 sqrt(c2^2 - 3 c1 c3), is positive."""
    found = _powers(x, y, 3)
    c0, c1, c2, c3 = found
    inner = c2**2 - 3 * c1 * c3
    below = c2 + np.sqrt(np.where(inner > 0, inner, np.nan))
    u = -c1 / np.where(below == 0, np.nan, below)
    return u + x.mean(), c0 + u * (c1 + u * (c2 + u * c3)), _drawn(x, found[:, 0])


def _akima(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Akima's interpolant of log loss, as Porian 2024 use it; runs of equal size are averaged first."""
    from scipy.interpolate import Akima1DInterpolator  # 0.3 s, needed here only

    sizes, where = np.unique(x, return_inverse=True)
    member = (where == np.arange(len(sizes))[:, None]) / np.bincount(where)[:, None]
    grid = np.linspace(sizes[0], sizes[-1], FINE if len(y) == 1 else FINE // 5)
    values = Akima1DInterpolator(sizes, member @ np.log(y).T)(grid)
    best = np.argmin(values, axis=0)
    curve = np.array([grid, np.exp(values[:, 0])])[:, :: len(grid) // (GRID - 1)]
    return grid[best], np.exp(np.take_along_axis(values, best[None], 0)[0]), curve


METHODS: dict[str, Callable[[Array, Array], tuple[Array, Array, Array]]] = {"parabola": _parabola, "cubic": _cubic, "akima": _akima}
