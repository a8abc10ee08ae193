"""Scaling laws: train sweeps over model size and tokens, fit laws, predict the optimal model.

The whole pipeline in Python: `from scaling import plan, run, fit, predict, report, load`. Importing
the package imports nothing else; fitting and reporting never import jax.
"""

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaling.api import DeviceTime, FitOptions, fit, load, plan, predict, report, run

__version__ = "0.1.0"
__all__ = [
    "DeviceTime",
    "FitOptions",
    "__version__",
    "fit",
    "load",
    "plan",
    "predict",
    "report",
    "run",
]
_FUNCTION_AND_PACKAGE = ("fit", "plan", "predict", "report")


class _CallablePackage(ModuleType):
    """A subpackage such as `scaling.fit` that is also the function `scaling.api.fit`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Any:
        return getattr(import_module("scaling.api"), self.__name__.rpartition(".")[2])

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self._function.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


class _Package(ModuleType):
    """The package `scaling`: makes a subpackage that is also a function callable when imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _FUNCTION_AND_PACKAGE and type(value) is ModuleType:
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _FUNCTION_AND_PACKAGE:
        return import_module(f"scaling.{name}")
    if name in __all__:
        return getattr(import_module("scaling.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
