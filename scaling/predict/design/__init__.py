"""Which runs to train: `scaling next` chooses them, `scaling plan` says beforehand what a plan will
be able to tell.

`belief` is the law that a design rests on, and the delta method; `pool` the runs that could be
trained and what they cost; `choose` picks among them; `proposal` and `emit` turn a fit into the
document and the sweep file of `scaling next`; `expectation` is what `scaling plan` shows.
"""

from scaling.predict.design.expected_precision import Planned, expected, expected_of_plan
from scaling.predict.design.next_runs import DesignConstraints, Runs, designed, next_runs
from scaling.predict.design.sweep_out import write_sweep

__all__ = [
    "DesignConstraints",
    "Planned",
    "Runs",
    "designed",
    "expected",
    "expected_of_plan",
    "next_runs",
    "write_sweep",
]
