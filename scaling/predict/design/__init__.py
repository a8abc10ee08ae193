"""Which runs to train: `scaling next` chooses them, `scaling plan` says beforehand what a plan will
be able to tell.

`law_model` is the law that a design rests on, and the delta method; `candidates` the runs that
could be trained and what they cost; `selection` picks among them; `next_runs` turns a fit into the
proposal and the sweep file of `scaling next`; `expected_precision` is what `scaling plan` shows;
`pool` and `pool_next` choose from a table of runs.
"""

from scaling.predict.design.expected_precision import expected, expected_of_plan
from scaling.predict.design.law_model import Runs
from scaling.predict.design.next_runs import DesignConstraints, designed, next_runs, write_sweep

__all__ = [
    "DesignConstraints",
    "Runs",
    "designed",
    "expected",
    "expected_of_plan",
    "next_runs",
    "write_sweep",
]
