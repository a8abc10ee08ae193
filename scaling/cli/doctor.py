"""The command `doctor`: what this machine has, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scaling.cli.output import TableOutput, page
from scaling.formatting import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

ALLOCATOR_STATES = {
    True: "kept between steps",
    False: "returned at every step",
    None: "not known on this system",
}


def doctor(output: TableOutput) -> None:
    """Show devices, versions, allocator, cache and optional tools of this machine, and problems.

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

    facts = Table("machine", "", (Column("what"), Column("value")), tuple(_facts(document)))
    problems = [
        Text(sanitize(f"! {problem['what']}\n    {problem['remedy']}"), style="yellow")
        for problem in document["problems"]
    ]
    fine = Text("nothing is wrong", style="green")
    return page(facts.to_rich(ruled=False), *(problems or [fine]))


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    cpu, memory, jax = document["cpu"], document["memory"], document["jax"]
    cache, allocator = document["cache"], document["allocator"]
    yield "python", f"{document['python']['version']} on {document['python']['platform']}"
    packages = [f"{item['name']} {item['installed'] or 'missing'}" for item in document["packages"]]
    yield "packages", ", ".join(packages)
    isa = " ".join(cpu["isa"] or ["instruction set unknown"])
    yield "cpu", f"{cpu['model']}, {cpu['usable_cores']} of {cpu['cores']} cores, {isa}"
    sizes = [memory[key] for key in ("available_bytes", "total_bytes") if memory[key]]
    yield "memory", " of ".join(map(format_bytes, sizes)) or "unknown"
    disk = document["disk"]
    yield "disk", f"{format_bytes(disk['free_bytes'])} free in {disk['folder']}"
    state = "made when needed"
    if cache["exists"]:
        state = "writable, " if cache["writable"] else "not writable, "
        state += "private" if cache["private"] else "open to others"
    yield "cache", f"{cache['folder']} ({state})"
    devices = [f"{device['kind']} ({device['platform']})" for device in jax.get("devices", [])]
    counts = ", ".join(f"{devices.count(kind)} x {kind}" for kind in dict.fromkeys(devices))
    yield "devices", jax.get("error") or counts
    kept = ALLOCATOR_STATES[allocator["workers_keep_memory"]]
    yield "allocator", f"{allocator['libc']}; memory of training processes is {kept}"
    variables = [f"{name}={value}" for name, value in document["environment"].items()]
    yield "environment", ", ".join(variables) or "nothing set"
    for name, tool in document["tools"].items():
        yield name, f"{tool['path'] or 'missing'} ({tool['for']})"
