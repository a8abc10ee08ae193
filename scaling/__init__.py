"""`scaling`: train sweeps over model size and tokens, fit scaling laws, predict the compute-optimal model.

In a notebook: `from scaling import load, fit, predict`. Nothing heavy is imported before one of them is called.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaling.api import fit, load, predict

__version__ = "0.1.0"
__all__ = ["fit", "load", "predict"]


class Callable(ModuleType):
    """The package `scaling.fit`, which is the function `scaling.fit(...)` too: one name of this package cannot hold both."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Fit a law: see `scaling.api.fit`."""
        return import_module("scaling.api").fit(*args, **options)


def __getattr__(name: str) -> Any:
    if name == "fit":
        return import_module("scaling.fit")
    if name in __all__:
        return getattr(import_module("scaling.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
