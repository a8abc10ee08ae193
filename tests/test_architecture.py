"""Who may import whom: the training and the fitting side meet at the row, and no package imports
the command line.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "scaling"
BASE = {"errors", "formatting", "units", "version", "warning"}
CONFIG = {*BASE, "files", "config"}
ALLOWED = {  # LAYOUT: the pipeline, left to right
    "errors": set(),
    "version": set(),
    "warning": set(),
    "formatting": set(),
    "units": {"errors"},
    "files": BASE,
    "config": {*BASE, "files", "accounting"},  # the names of its conventions
    "accounting": CONFIG,
    "recipe": {*CONFIG, "accounting"},
    "store": {*CONFIG, "accounting"},
    "plan": {*CONFIG, "accounting", "recipe"},
    "tasks": {*CONFIG, "accounting", "store"},
    "points": {*CONFIG, "accounting", "store"},
    "train": {*CONFIG, "accounting", "tasks", "store"},
    "tuning": {*CONFIG, "accounting", "plan", "recipe", "store"},
    "fit": {*CONFIG, "accounting", "points", "recipe", "store", "tasks"},
    "predict": {*CONFIG, "accounting", "fit", "points", "recipe", "store", "plan", "render"},
    "execute": {
        *CONFIG,
        "accounting",
        "plan",
        "recipe",
        "train",
        "store",
        "tasks",
        "fit",
        "points",
        "tuning",
        "trackers",
    },
    "trackers": {*CONFIG, "accounting", "points", "plan", "store"},
    "render": BASE,
    "studies": {*CONFIG, "accounting", "fit", "predict", "points", "render", "tasks", "store"},
    "report": {
        *CONFIG,
        "accounting",
        "studies",
        "predict",
        "fit",
        "render",
        "points",
        "store",
        "tuning",
    },
    "export": {*CONFIG, "accounting", "store", "execute", "hf_export", "tasks", "train"},
    "hf_export": CONFIG,
    "api": {
        *CONFIG,
        "accounting",
        "execute",
        "fit",
        "plan",
        "points",
        "predict",
        "render",
        "report",
        "tasks",
    },
    "cli": None,  # may import everything
    "__main__": {"cli"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def package(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_packages(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {
        name.split(".")[1]
        for name in names
        if name.startswith("scaling.") and not name.startswith("scaling.__")
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_packages_import_only_what_is_allowed(path):
    here = package(path)
    if here == "__init__":
        assert imported_packages(path) == {
            "api"
        }  # for type checkers alone: tests/test_api.py sees that nothing is imported
    elif ALLOWED[here] is not None:
        assert imported_packages(path) - {here} <= ALLOWED[here]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_train_imports_jax(path):
    if package(path) == "train":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in modules} & {"jax", "flax", "optax", "orbax"}


def test_no_module_is_named_utils_or_common():
    assert not [path for path in FILES if path.stem in {"utils", "common", "helpers", "misc"}]
