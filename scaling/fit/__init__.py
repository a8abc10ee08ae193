"""The fitting half of the line: Points -> fit -> frontier, prediction. numpy and scipy only; it works on anybody's table.

The package is callable: `scaling.fit(source)` is `scaling.api.fit`.
"""

import sys

import scaling

sys.modules[__name__].__class__ = scaling.Callable
