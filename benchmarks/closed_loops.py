"""Does a forecast come true? Train a sweep, predict eight times its budget, train there, compare.

    python -m benchmarks.closed_loops --out FOLDER [--seeds 0,1,2] [--texts stdlib,docstrings,facts]
                                      [--law auto]

Three sources of text: the standard library's sources ("stdlib"), the docstrings of installed
scientific packages ("docstrings"), and a synthetic language ("facts", Zipf-distributed facts). For
each and every seed: `scaling run sweeps/closed-loop.toml`, `scaling fit`, `scaling predict --flops
8e11 --emit`, `scaling run` of what was emitted (the predicted optimum with two seeds, half and
twice its size), and for each of these runs `scaling predict --n-params N --tokens D` of the first
fit. Prints one row a run: loss predicted with its interval, loss measured, error, inside or not;
then the totals, and N* predicted against the minimum of the parabola through the runs. Everything
is kept in FOLDER; a second call trains only what is missing, and asks the fits of the present
program.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from scaling import load

SWEEP = Path("sweeps/closed-loop.toml")
FLOPS = 8e11
PACKAGES = ("numpy", "scipy", "pandas", "matplotlib", "jax", "flax", "optax")


def scaling(*arguments: object) -> str:
    """Standard output of one command. Raises CalledProcessError."""
    command = [str(Path(sys.executable).parent / "scaling"), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def train(sweep: Path, out: Path) -> None:
    """Train what is missing. A finished folder stays as it is, whichever program trained it."""
    if (out / "plan.json").exists():
        counts = json.loads(scaling("status", out, "--json"))["counts"]
        if counts["done"] == sum(counts.values()):
            return
    scaling("run", sweep, "--out", out)


def docstrings(out: Path) -> None:
    """One text file a package: the docstrings of its modules, classes and functions."""
    out.mkdir(parents=True, exist_ok=True)
    packages = Path(np.__file__).parents[1]
    for name in PACKAGES:
        for number, source in enumerate(sorted((packages / name).rglob("*.py"))):
            try:
                tree = ast.parse(source.read_text())
            except (SyntaxError, UnicodeDecodeError):
                continue
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef
            documented = [
                ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)
            ]
            text = "\n\n".join(doc for doc in documented if doc and len(doc) > 200)
            if text:
                (out / f"{name}-{number:04}.txt").write_text(text)


def sweep_file(text: str, seed: int, out: Path) -> Path:
    """The sweep with this text and seed."""
    written = SWEEP.read_text().replace("seeds = [0]", f"seeds = [{seed}]")
    if text == "docstrings":
        if not (out / "docstrings").exists():
            docstrings(out / "docstrings.texts")
            scaling("data", "prepare", out / "docstrings.texts", "--out", out / "docstrings")
        written = written.replace('"stdlib"', f'"{out.resolve() / "docstrings"}"')
    if text == "facts":
        written = written.replace(
            'kind = "text"\ncorpus = "stdlib"',
            'kind = "synthetic"\nn_facts = 1_048_576\nzipf = 0.5',
        )
        written = written.replace("seq_len = 64", "seq_len = 60")
    path = out / f"{text}-{seed}.toml"
    path.write_text(written.replace('name = "closed-loop"', f'name = "{text}-{seed}"'))
    return path


def closed_loop(
    text: str, seed: int, out: Path, law: str
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """The runs at FLOPS with what was predicted for each, smallest first, and the N* predicted."""
    sweep, folder = sweep_file(text, seed, out), out / f"{text}-{seed}"
    emitted, tested = out / f"{text}-{seed}-8c.toml", out / f"{text}-{seed}-8c"
    train(sweep, folder)
    fit = out / f"{text}-{seed}-{law}.json"
    fit.write_text(scaling("fit", folder, "--law", law, "--json", "--out", fit))
    budget = ("predict", fit, "--flops", FLOPS)
    answer = json.loads(scaling(*budget, "--json"))
    if not emitted.exists():
        scaling(*budget, "--emit", emitted, "--base", sweep)
    train(emitted, tested)
    rows = load(tested)
    rows = rows[(rows["split"] == "val") & (rows["metric"] == "loss")]
    final = rows.sort_values("step").groupby("run_id").tail(1)
    final = final.assign(n=final["n_params"] - final["vocab_size"] * final["d_model"])  # with_head
    results = []
    for _, row in final.sort_values("n").iterrows():
        question = ("--n-params", int(row["n"]), "--tokens", int(row["tokens"]))
        loss = json.loads(scaling("predict", fit, *question, "--json"))["loss"]
        interval = {key: loss[key] for key in ("value", "lo", "hi")}
        results.append({"n": row["n"], "measured": row["value"], **interval})
    return results, answer["n_params"]


def minimum(rows: list[dict[str, float]]) -> float:
    """N at the minimum of the parabola in log N through the three runs; NaN where it is none."""
    curve = np.polyfit([np.log(row["n"]) for row in rows], [row["measured"] for row in rows], 2)
    return float(np.exp(-curve[1] / (2 * curve[0]))) if curve[0] > 0 else float("nan")


def main() -> None:
    """Train, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--texts", default="stdlib,docstrings,facts")
    parser.add_argument("--law", default="auto")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    errors, inside, widths = [], [], []
    print("text seed      N  predicted [95 %]          measured  error %  inside", flush=True)
    for text in options.texts.split(","):
        for seed in map(int, options.seeds.split(",")):
            rows, n_star = closed_loop(text, seed, options.out, options.law)
            for row in rows:
                errors.append(100 * (row["value"] / row["measured"] - 1))
                inside.append(row["lo"] <= row["measured"] <= row["hi"])
                widths.append(100 * (row["hi"] / row["lo"] - 1))
                print(
                    f"{text} {seed} {row['n']:8.0f}  {row['value']:.4f} [{row['lo']:.4f}, "
                    f"{row['hi']:.4f}]  {row['measured']:.4f}  {errors[-1]:+.2f}  {inside[-1]}"
                )
            print(
                f"{text} {seed} N*  {n_star['value']:.0f} [{n_star['lo']}, {n_star['hi']}]"
                f"  measured {minimum(rows):.0f}",
                flush=True,
            )
    print(
        f"{len(errors)} runs: mean |error| {np.mean(np.abs(errors)):.2f} %, bias "
        f"{np.mean(errors):+.2f} %, inside {sum(inside)}, median width {np.median(widths):.1f} %"
    )


if __name__ == "__main__":
    main()
