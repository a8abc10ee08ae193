"""Run every command of docs/fidelity.md against a folder of the published data: `python
benchmarks/fidelity.py FOLDER`.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "fidelity.md"


@dataclass(frozen=True)
class Claim:
    """One command and what its JSON document must hold: key to text such as "1.817218" or ".192 ±
    .005".
    """

    command: str
    expected: dict[str, str]


def claims(page: Path = PAGE) -> Iterator[Claim]:
    """The blocks of the page, in order."""
    for command, table in re.findall(
        r"^    (scaling .+)\n\n\| key \| value \|\n\|---\|---\|\n((?:\|.+\|\n)+)",
        page.read_text(encoding="utf-8"),
        re.M,
    ):
        rows = [row.strip("|").split("|") for row in table.strip().splitlines()]
        yield Claim(command, {key.strip(): value.strip() for key, value in rows})


def arguments(claim: Claim, data: Path) -> list[str]:
    """The command's words after `scaling`, with the data folder put in."""
    return [word.replace("$DATA", str(data)) for word in shlex.split(claim.command)[1:]]


def at(document: Any, key: str) -> float:
    """The number under a dotted key; a part may be the index of a list."""
    for part in re.split(r"\.(?![^\[]*\])", key):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return float(document)


def tolerance(text: str) -> tuple[float, float]:
    """(value, how far off it may be): what is written after ±, or half a unit of the last digit."""
    value, _, margin = text.partition("±")
    if margin:
        return float(value), float(margin)
    exponent = Decimal(value.strip()).as_tuple().exponent
    return float(value), 0.5000001 * 10.0 ** int(exponent)


def answer(words: list[str]) -> Any:
    """The JSON document that a command prints, run in this process."""
    from typer.testing import CliRunner

    from scaling.cli.app import app

    done = CliRunner().invoke(app, [*words, "--json"])
    if done.exit_code:
        raise RuntimeError(
            f"scaling {' '.join(words)}: exit {done.exit_code}\n{done.stderr or done.output}"
        )
    return json.loads(done.stdout)


def main() -> int:
    """Print each number beside the published one; 1 when any is off."""
    data, wrong = Path(sys.argv[1]), 0
    for claim in claims():
        print(claim.command)
        document = answer(arguments(claim, data))
        for key, text in claim.expected.items():
            value, margin = tolerance(text)
            got = at(document, key)
            right = abs(got - value) <= margin
            wrong += not right
            print(f"  {'ok ' if right else 'OFF'} {key:<28} {text:<18} {got:.10g}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
