"""The document of `steps.py` as ratios and as a Markdown page."""

from __future__ import annotations

import math
from typing import Any

NANOGPT, NANODO, PLAIN = "nanoGPT", "NanoDO", "plain JAX"
OURS, RECIPE, HALF = "ours, their architecture", "ours, default recipe", ", bf16"

HEAD = """# Speed of one training step

`make bench STEP_PEERS="--peers PYTHON --nanogpt FOLDER --nanodo FOLDER"` measures tokens a second
(and exact FLOPs over the float32 matmul peak) of one AdamW step on {cores} cores of {cpu}, whose
float32 peak is {peak:.0f} GFLOP/s ({versions}). In the large table every contestant is two
single-threaded processes side by side; tokens a second add up. Contestants take turns until
{rounds} rounds were calm, and the best turn counts; noise is the median matmul of a cell over the
best of the run (1.0 is a quiet machine). Shapes and batches stand in `benchmarks/steps.py`.
nanoGPT and NanoDO are as their repositories have them; `plain JAX` is nanoGPT's architecture
without tricks (`benchmarks/step_plain.py`); `their architecture` is LayerNorm, learned positions,
tied embedding, GELU, no biases; `default recipe` has RMSNorm, RoPE, QK-norm and a head of its own
at as many non-embedding parameters. **Ratio** is ours in their architecture over the faster of
the two peers in float32, `recipe` the default recipe over the same; with bf16, ours over the
fastest peer of either precision.
"""


def summarise(document: dict[str, Any]) -> dict[str, Any]:
    """The document with FLOP/s, fractions of peak, ratios and geometric means filled in."""
    peak = document["peak_flops_per_second"]
    for row in (*document["cells"], *document["one_process"]):
        for entrant in row["contestants"].values():
            entrant["flops_per_second"] = entrant["tokens_per_second"] * entrant["flops_per_token"]
            entrant["fraction_of_peak"] = entrant["flops_per_second"] / peak
        row["ratios"] = ratios(
            {name: entrant["tokens_per_second"] for name, entrant in row["contestants"].items()}
        )
    document["geometric_means"] = {
        name: geometric_means(document[name]) for name in ("cells", "one_process") if document[name]
    }
    return document


def ratios(speed: dict[str, float]) -> dict[str, float]:
    """Ours over each other contestant of its precision or float32, and over the fastest of the
    peers (without peers, over plain JAX).
    """
    theirs = [name for name in speed if not name.startswith((OURS, RECIPE, PLAIN))] or [PLAIN]
    single = max(speed[name] for name in theirs if not name.endswith(HALF))
    either = max(speed[name] for name in theirs)
    each = {
        f"ours / {name}": speed[OURS + HALF if name.endswith(HALF) else OURS] / speed[name]
        for name in (*theirs, PLAIN)
    }
    plain = {"ratio": speed[OURS] / single, "recipe": speed[RECIPE] / single}
    return (
        each
        | plain
        | {
            "ratio, bf16": speed[OURS + HALF] / either,
            "recipe, bf16": speed[RECIPE + HALF] / either,
        }
    )


def geometric_means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Over the cells of a table."""
    return {
        name: math.exp(sum(math.log(row["ratios"][name]) for row in rows) / len(rows))
        for name in rows[0]["ratios"]
    }


def rounded(value: float) -> str:
    """Three digits with a unit: 163k, 18.7k, 2.32k."""
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if value >= scale:
            size = value / scale
            return f"{size:.{0 if size >= 100 else 1 if size >= 10 else 2}f}{unit}"
    return f"{value:.0f}"


SHOWN = ("ratio", "recipe", "ratio, bf16", "recipe, bf16")


def table(rows: list[dict[str, Any]], means: dict[str, float]) -> str:
    """A row a cell: speed and fraction of peak of each contestant, ratios, and a last row of
    geometric means.
    """
    names = list(rows[0]["contestants"])
    head = ["N", "T", "V", "batch", *names, *SHOWN, "noise"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        entries = [row["contestants"][name] for name in names]
        speeds = [
            f"{rounded(entry['tokens_per_second'])} ({entry['fraction_of_peak']:.2f})"
            for entry in entries
        ]
        cells = [
            *row["cell"].split("-"),
            str(row["batch"]),
            *speeds,
            *(f"{row['ratios'][name]:.2f}" for name in SHOWN),
        ]
        lines.append(f"| {' | '.join(cells)} | {row['noise']:.2f} |")
    over = [f"{means[key]:.2f}x" if (key := f"ours / {name}") in means else "" for name in names]
    shown = [f"**{means[name]:.2f}**" for name in SHOWN]
    lines.append(f"| geometric mean of ours over it | | | | {' | '.join([*over, *shown])} | |")
    return "\n".join(lines) + "\n"


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    machine = document["machine"]
    versions = ", ".join(
        f"{name} {machine[name]}"
        for name in ("python", "jax", "torch", "flax", "optax")
        if name in machine
    )
    head = HEAD.format(
        cores=machine["cores"],
        cpu=machine["cpu"],
        peak=document["peak_flops_per_second"] / 1e9,
        versions=versions,
        rounds=document["rounds"],
    )
    parts = [head, table(document["cells"], document["geometric_means"]["cells"])]
    if document["one_process"]:
        parts += [
            "## One process of two threads\n",
            table(document["one_process"], document["geometric_means"]["one_process"]),
        ]
    if "start_up" in document:
        parts.append(beside(document))
    return "\n".join(parts)


def beside(document: dict[str, Any]) -> str:
    """What surrounds a step: start-up and data."""
    start, data = document["start_up"], document["data"]["tokens_per_second"]
    first = document["cells"][0]
    fastest = max(first["contestants"][name]["tokens_per_second"] for name in (OURS, RECIPE))
    return (
        "## Start-up and data\n\n"
        "- From the end of the imports to the end of the first step, default recipe at 1M: "
        f"{start['warm_seconds']:.2f} s with a warm compile cache, "
        f"{start['cold_seconds']:.1f} s cold.\n"
        f"- `Task.batch` reads {rounded(data)} tokens a second of a memory-mapped store at "
        f"random, {data / fastest:.0f} times what the fastest step of "
        f"{first['cell'].split('-')[0]} takes in.\n"
    )
