"""Which runs to train: `scaling next` chooses them, `scaling plan` says beforehand what a plan will
be able to tell.

`selection` is the one engine that picks runs: `next_runs` gives it candidates that a sweep can
build and the law of a fit, `pool` the rows of a table and the `posterior` of any law.
`expected_precision` is what `scaling plan` shows; it and `next_runs` rest on `law_model`, the delta
method.
"""

from scaling.predict.design.expected_precision import expected, expected_of_plan
from scaling.predict.design.law_model import Runs
from scaling.predict.design.next_runs import candidates, designed, next_runs
