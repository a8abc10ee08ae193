"""The command `doctor`: what this machine has, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scaling.cli.output import TableOutput, page
from scaling.formatting import flatten, format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType


def doctor(output: TableOutput) -> None:
    """Show devices, versions, memory, cache and optional tools of this machine, and problems.

    Example: scaling doctor --json
    """
    from scaling.execute.machine import examine

    document = examine()
    output.emit(
        document,
        lambda: render(document),
        None if document["problems"] else "scaling plan sweeps/demo.toml",
    )


def render(document: Mapping[str, Any]) -> RenderableType:
    """A table of facts, then the problems with their remedies."""
    from rich.text import Text

    from scaling.render.escape import sanitize
    from scaling.render.table import Column, Table

    facts: dict[str, Any] = {name: value for name, value in document.items() if name != "problems"}
    packages = facts.pop("packages").items()
    facts["packages"] = ", ".join(f"{name} {item['installed'] or '-'}" for name, item in packages)
    cells = [
        (name, format_bytes(value) if value and name.endswith("_bytes") else str(value))
        for name, value in flatten(facts)
    ]
    table = Table("machine", "", (Column("what"), Column("value")), tuple(cells))
    problems = [
        Text(sanitize(f"! {problem['what']}\n    {problem['remedy']}"), style="yellow")
        for problem in document["problems"]
    ]
    fine = Text("nothing is wrong", style="green")
    return page(table.to_rich(ruled=False), *(problems or [fine]))
