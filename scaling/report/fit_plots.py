"""The figures of a fit on matplotlib axes: `fit.plot.isoflop(ax=ax)`."""

from __future__ import annotations

from typing import Any

from scaling.errors import ScalingError
from scaling.fit.result import FitResult
from scaling.render.figure import Figure
from scaling.report.inputs import ReportInputs
from scaling.report.parts import isoflop_figure, law_plots


class FitPlots:
    """Each method draws on `ax`, or on axes of a new pyplot figure, and returns the axes. For a
    paper: `plt.style.use("scaling.render.paper")` first.
    """

    def __init__(self, fit: FitResult) -> None:
        self._fit = fit
        self._law = ReportInputs("fit", fits={"fit": fit}).law

    def isoflop(self, ax: Any = None) -> Any:
        """Loss against size at each budget with the law over it, and the optima."""
        return self._draw(isoflop_figure.isoflop_curves(self._fit, self._law), ax)

    def frontier(self, ax: Any = None) -> Any:
        """N*(C) by the combination and the three approaches."""
        return self._draw(law_plots.frontier_size(self._fit, self._law), ax)

    def forecast(self, ax: Any = None) -> Any:
        """L*(C) with its interval, to ten times the largest budget, and the runs."""
        return self._draw(law_plots.frontier_loss(self._fit, self._law), ax)

    def law(self, ax: Any = None) -> Any:
        """Lines of equal loss over compute and size."""
        return self._draw(law_plots.contours(self._fit, self._law), ax)

    def residuals(self, ax: Any = None) -> Any:
        """Measured over predicted losses, coloured by size."""
        return self._draw(law_plots.residuals(self._fit, self._law), ax)

    def _draw(self, figure: Figure | None, ax: Any) -> Any:
        from scaling.render.matplotlib_backend import draw_on

        if figure is None:
            raise ScalingError(
                f"a fit of the law {self._fit.law} by {self._fit.approach} has no such figure",
                where=", ".join(self._fit.source.paths),
                remedy="fit a law of N and D to runs of several budgets",
            )
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots()[1]
        return draw_on(ax, figure)
