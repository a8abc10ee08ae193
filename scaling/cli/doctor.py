"""The command `doctor`: what this machine has, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling.cli.output import Output, facts


def doctor(output: Output) -> None:
    """Show devices, versions, memory and cache of this machine, and problems.

    Example: scaling doctor --json
    """
    from scaling.execute.machine import examine

    document = examine()
    next_command = None if document["problems"] else "scaling plan sweeps/demo.toml"
    output.emit(document, lambda: render(document), next_command)


def render(document: Mapping[str, Any]) -> list[object]:
    """A table of facts, then the problems with their remedies."""
    problems = [f"! {problem['what']}\n    {problem['remedy']}" for problem in document["problems"]]
    shown = {name: value for name, value in document.items() if name != "problems"}
    shown["packages"] = {
        name: package["installed"] or "missing" for name, package in document["packages"].items()
    }
    return [facts("machine", shown), *(problems or ["nothing is wrong"])]
