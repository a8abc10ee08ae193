"""Who may import whom: the two halves of the line meet at the row, and nobody imports the command line."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "scaling"
FREE = {"errors", "quantity", "plain", "nested"}
CONFIG = {*FREE, "config", "sweepfile", "durable"}
ALLOWED = {
    "errors": set(),
    "quantity": {"errors"},
    "plain": set(),
    "nested": set(),
    "config": FREE,
    "sweepfile": {*FREE, "config", "durable"},
    "overrides": {*CONFIG},
    "draft": {*CONFIG, "plan", "recipe"},
    "durable": FREE,
    "provenance": set(),
    "archive": {*FREE, "durable", "results"},
    "merge": {*FREE, "durable", "results", "archive"},
    "accounting": {"config"},
    "recipe": {*CONFIG, "accounting"},
    "family": CONFIG,
    "meshes": CONFIG,
    "settle": CONFIG,
    "memory": {*CONFIG, "accounting", "settle"},
    "capacity": {*CONFIG, "memory", "meshes", "settle"},
    "plan": {*CONFIG, "accounting", "recipe", "family", "memory", "meshes"},
    "tuning": {*CONFIG, "recipe", "plan", "archive", "results"},
    "cache": FREE,
    "simulation": CONFIG,
    "results": {*CONFIG, "accounting", "simulation"},
    "measured": {*CONFIG, "results"},
    "doctor": {*FREE, "cache", "execute"},
    "tasks": {*CONFIG, "cache", "results"},
    "lm": {*CONFIG, "accounting", "family", "meshes", "settle", "tasks", "results", "measured", "provenance"},
    "execute": {
        *CONFIG,
        "accounting",
        "family",
        "meshes",
        "plan",
        "results",
        "cache",
        "tasks",
        "lm",
        "measured",
        "recipe",
        "fit",
        "archive",
        "merge",
        "provenance",
    },
    "fit": {*CONFIG, "accounting", "results", "archive", "recipe", "settle", "tasks"},
    "lab": {*CONFIG, "accounting", "results", "fit", "tasks", "settle"},
    "report": {*CONFIG, "accounting", "results", "archive", "fit", "lab"},
    "trackers": {*CONFIG, "accounting", "results", "archive", "plan", "fit"},
    "export": {*CONFIG, "accounting", "results", "archive", "execute", "tasks", "lm"},
    "notebook": {*FREE, "fit", "report"},
    "cli": None,  # may import every room
    "__main__": {"cli"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("scaling.") and not name.startswith("scaling.__")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_plan_of_the_house(path):
    here = room(path)
    if here == "__init__":
        assert imported_rooms(path) == {"notebook"}  # for type checkers alone: tests/test_api.py sees that nothing is imported
    elif ALLOWED[here] is not None:
        assert imported_rooms(path) - {here} <= ALLOWED[here]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_one_room_knows_jax(path):
    if room(path) == "lm":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in modules} & {"jax", "flax", "optax", "orbax"}


def test_no_room_without_a_name_of_its_own():
    assert not [path for path in FILES if path.stem in {"utils", "common", "helpers", "misc"}]
