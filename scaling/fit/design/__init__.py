"""Which runs to train: `scaling next` chooses them, `scaling plan` says beforehand what a plan will be able to tell.

`belief` is the law that a design rests on, and the delta method; `pool` the runs that could be trained and what they cost;
`choose` picks among them; `proposal` and `emit` turn a fit into the document and the sweep file of `scaling next`;
`expectation` is what `scaling plan` shows.
"""

from scaling.fit.design.emit import write_sweep
from scaling.fit.design.expectation import Planned, expected
from scaling.fit.design.proposal import Runs, Terms, designed, next_runs

__all__ = ["Planned", "Runs", "Terms", "designed", "expected", "next_runs", "write_sweep"]
