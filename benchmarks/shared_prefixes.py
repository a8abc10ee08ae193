"""What shared prefixes cost and what they change: each sweep as it is, and the same grid of
separate cosine runs.

    python benchmarks/shared_prefixes.py [SWEEP ...] [--out FOLDER] [--write
    docs/shared-prefixes.md]

Both are trained by `scaling run` on this machine, one after the other, with the same workers; FLOPs
are exact, seconds
those of the whole command, compilation included (nothing is cached). Exponents are those of
`scaling fit` with 95 % intervals. Without
sweeps: the demo (four budgets) and `sweeps/shared-prefixes.toml` (eight).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from scaling.config.sweep_file import load_sweep
from scaling.execute.machine import examine

SWEEPS = [Path("sweeps/demo.toml"), Path("sweeps/shared-prefixes.toml")]
ROADS = {"isoflop": ["--approach", "isoflop"], "parametric": ["--approach", "parametric"]}


@dataclass(frozen=True)
class Trained:
    """A sweep that was trained: its FLOPs, the seconds of the command, and the exponent of N* by
    each road.
    """

    name: str
    schedule: str
    n_runs: int
    flops: float
    seconds: float
    exponents: dict[str, dict[str, float]]


def scaling(*args: str, cache: str | None = None) -> str:
    """What a command prints on stdout."""
    environment = dict(os.environ) | ({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {})
    done = subprocess.run(
        [sys.executable, "-m", "scaling", *args],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"scaling {' '.join(args)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def separate(sweep: Path, folder: Path) -> Path:
    """The same sweep with the cosine schedule: no two runs share a step."""
    loaded = load_sweep(sweep)
    document = loaded.model_dump(mode="json", exclude_none=True, exclude_defaults=True) | {
        "name": f"{loaded.name}-cosine"
    }
    document["base"]["optim"] = document["base"].get("optim", {}) | {"schedule": "cosine"}
    path = folder / f"{loaded.name}-cosine.toml"
    path.write_text(tomli_w.dumps(document))
    return path


def trained(sweep: Path, folder: Path) -> Trained:
    """Train a sweep into `folder` and fit it; what stands there already is not trained again, and
    its seconds are those noted then.
    """
    loaded, out = load_sweep(sweep), folder / sweep.stem
    plan = json.loads(scaling("plan", str(sweep), "--no-probe", "--json"))
    note = out / "seconds.json"
    if not note.exists():
        with tempfile.TemporaryDirectory() as cache:
            begun = time.monotonic()
            scaling("run", str(sweep), "--out", str(out), cache=cache)
        note.write_text(json.dumps(time.monotonic() - begun))
    schedule = getattr(loaded.base.optim, "schedule", None) or "wsd"
    exponents = {road: exponent(out, options) for road, options in ROADS.items()}
    return Trained(
        loaded.name,
        schedule,
        len(plan["runs"]),
        plan["flops"],
        json.loads(note.read_text()),
        exponents,
    )


def exponent(out: Path, options: list[str]) -> dict[str, float]:
    """N* ~ C^a of a results folder, with its interval."""
    document: dict[str, Any] = json.loads(
        scaling("fit", str(out), "--json", "--out", str(out / "fit.json"), *options)
    )
    return document["derived"]["a"]


def table(found: list[Trained]) -> str:
    """A row a sweep; costs as shares of the separate cosine runs of the same grid."""
    heads = [
        "sweep",
        "schedule",
        "runs",
        "FLOPs",
        "share",
        "seconds",
        "share",
        *(f"a ({road})" for road in ROADS),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for pair in zip(found[::2], found[1::2], strict=True):
        for each in pair:
            cells = [
                each.name,
                each.schedule,
                str(each.n_runs),
                f"{each.flops:.3g}",
                f"{each.flops / pair[1].flops:.2f}",
            ]
            cells += [f"{each.seconds:.0f}", f"{each.seconds / pair[1].seconds:.2f}"]
            cells += [
                f"{a['value']:.3f} [{a['lo']:.2f}, {a['hi']:.2f}]" for a in each.exponents.values()
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, fit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="*", type=Path, default=SWEEPS)
    parser.add_argument("--out", type=Path, default=Path("results/shared-prefix-costs"))
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found = [
        trained(path, asked.out)
        for sweep in asked.sweeps
        for path in (sweep, separate(sweep, asked.out))
    ]
    print(table(found))
    if asked.write:
        cpu = examine()["cpu"]
        head = (
            f"# Trunks against separate runs\n\n{__doc__.strip()}\n\nMeasured on "
            f"{cpu['usable_cores']} cores of {cpu['model']}.\n\n"
        )
        asked.write.write_text(head + table(found))


if __name__ == "__main__":
    main()
