"""The document of `steps.py` as ratios and as a Markdown page."""

from __future__ import annotations

import math
from typing import Any

NANOGPT, NANODO, PLAIN = "nanoGPT", "NanoDO", "plain JAX"
OURS, RECIPE = "ours, their architecture", "ours, default recipe"

HEAD = """# Speed of one training step

`make bench STEP_PEERS="--peers PYTHON --nanogpt FOLDER --nanodo FOLDER"` measures tokens a second (and the fraction of the matmul peak) of
one float32 AdamW step on {cores} cores of {cpu}, whose peak is {peak:.0f} GFLOP/s ({versions}).
Contestants take turns until {rounds} rounds were calm, and the best turn counts; noise is the median matmul of a cell over the best of the
run (1.0 is a quiet machine). Shapes and batches stand in `benchmarks/steps.py`. nanoGPT and NanoDO are as their
repositories have them; `plain JAX` is nanoGPT's architecture without tricks (`benchmarks/step_plain.py`); `their architecture` is
LayerNorm, learned positions, tied embedding, GELU, no biases; `default recipe` has RMSNorm, RoPE, QK-norm and a head of its own
at as many non-embedding parameters. **Ratio** is ours in their architecture over the faster of the two peers; the last column is
the default recipe over the same.
"""


def summarise(document: dict[str, Any]) -> dict[str, Any]:
    """The document with FLOP/s, fractions of peak, ratios and geometric means filled in."""
    peak = document["peak_flops_per_second"]
    for row in (*document["cells"], *document["side_by_side"]):
        for entrant in row["contestants"].values():
            entrant["flops_per_second"] = entrant["tokens_per_second"] * entrant["flops_per_token"]
            entrant["fraction_of_peak"] = entrant["flops_per_second"] / peak
        row["ratios"] = ratios({name: entrant["tokens_per_second"] for name, entrant in row["contestants"].items()})
    document["geometric_means"] = {name: geometric_means(document[name]) for name in ("cells", "side_by_side") if document[name]}
    return document


def ratios(speed: dict[str, float]) -> dict[str, float]:
    """Ours over each other contestant, and over the faster of the peers (without peers, over plain JAX)."""
    theirs = [name for name in speed if name not in (OURS, RECIPE, PLAIN)] or [PLAIN]
    base = max(speed[name] for name in theirs)
    each = {f"ours / {name}": speed[OURS] / speed[name] for name in speed if name not in (OURS, RECIPE)}
    return each | {"ratio": speed[OURS] / base, "recipe": speed[RECIPE] / base}


def geometric_means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Over the cells of a table."""
    return {name: math.exp(sum(math.log(row["ratios"][name]) for row in rows) / len(rows)) for name in rows[0]["ratios"]}


def rounded(value: float) -> str:
    """Three digits with a unit: 163k, 18.7k, 2.32k."""
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if value >= scale:
            size = value / scale
            return f"{size:.{0 if size >= 100 else 1 if size >= 10 else 2}f}{unit}"
    return f"{value:.0f}"


def table(rows: list[dict[str, Any]], means: dict[str, float]) -> str:
    """A row a cell: speed and fraction of peak of each contestant, ratios, and a last row of geometric means."""
    names = list(rows[0]["contestants"])
    head = ["N", "T", "V", "batch", *names, "ratio", "recipe", "noise"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        entries = [row["contestants"][name] for name in names]
        speeds = [f"{rounded(entry['tokens_per_second'])} ({entry['fraction_of_peak']:.2f})" for entry in entries]
        cells = [*row["cell"].split("-"), str(row["batch"]), *speeds, f"**{row['ratios']['ratio']:.2f}**", f"{row['ratios']['recipe']:.2f}"]
        cells.append(f"{row['noise']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    over = [f"{means[key]:.2f}x" if (key := f"ours / {name}") in means else "" for name in names]
    lines.append(f"| geometric mean of ours over it | | | | {' | '.join(over)} | **{means['ratio']:.2f}** | {means['recipe']:.2f} | |")
    return "\n".join(lines) + "\n"


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "jax", "torch", "flax", "optax") if name in machine)
    head = HEAD.format(cores=machine["cores"], cpu=machine["cpu"], peak=document["peak_flops_per_second"] / 1e9, versions=versions,
                       rounds=document["rounds"])  # fmt: skip
    parts = [head, table(document["cells"], document["geometric_means"]["cells"])]
    if document["side_by_side"]:
        parts += ["## One single-threaded process a core, side by side\n\nTokens a second of all processes together; what `scaling run` does on a CPU.\n",
                  table(document["side_by_side"], document["geometric_means"]["side_by_side"])]  # fmt: skip
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
        f"- From the end of the imports to the end of the first step, default recipe at 1M: {start['warm_seconds']:.2f} s with a warm compile cache, "
        f"{start['cold_seconds']:.1f} s cold.\n"
        f"- `Task.batch` reads {rounded(data)} tokens a second of a memory-mapped store at random, {data / fastest:.0f} times what the fastest step of "
        f"{first['cell'].split('-')[0]} takes in.\n"
    )
