"""What training holds in memory, against the planner's estimate: `python -m benchmarks.memory [--json] [--write docs/memory.md]`.

Five models of the recipe from 50k to 50M parameters, trained for a few steps in processes of one thread with the settings
of workers. Every model is trained twice:

- cold: with an empty compilation cache, as the first worker does. `process` is the most memory that the process ever held
  (ru_maxrss), and the planner's figure for it is `memory.process_bytes`.
- warm: the program comes from the cache. `measured` is the most memory (VmHWM) while `train` runs, above what the process
  held just before: its code, its libraries, the opened task, and jax with one trivial program run are there already.
  The planner's figure for it is `memory.estimate(run).total` and the batches read ahead.

`XLA` is the compiler's own plan for the training step: arguments, results and temporary buffers that do not overlap.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scaling import memory, recipe
from scaling.accounting import n_params
from scaling.config import EvalConfig, Execution, OptimConfig, Recipe, RunConfig, SyntheticTask
from scaling.execute.environment import worker_environment
from scaling.quantity import format_bytes, format_count

ROOT = Path(__file__).parents[1]
SEQUENCES = 4  # held-out windows: as few as do not hide what a step needs
MODELS = {  # size: (vocabulary, sequence length, batch, execution)
    "50k": (256, 128, 64, {}),
    "500k": (256, 128, 64, {}),
    "2M": (4096, 256, 32, {}),
    "10M": (4096, 256, 16, {}),
    "50M": (50304, 256, 8, {}),
}
COLUMNS = "| model | N total | batch | estimate | XLA | measured | estimate / measured | process: estimate | measured | ratio |"


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--child", choices=list(MODELS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(_child(asked.child)))
        return
    rows = [measure(name) for name in asked.only]
    text = page(rows)
    print(json.dumps(rows, indent=1) if asked.json else text)
    if asked.write:
        asked.write.write_text(text, encoding="utf-8")


def model_run(name: str) -> tuple[RunConfig, Execution]:
    """A run of the recipe with a few steps, and how it is carried out."""
    vocab_size, seq_len, batch, how = MODELS[name]
    size = float(name[:-1]) * {"k": 1e3, "M": 1e6}[name[-1]]
    model = recipe.model_for(size, Recipe(), vocab_size=vocab_size, seq_len=seq_len, params="total")
    task = SyntheticTask(kind="synthetic", n_facts=256, n_symbols=vocab_size, seq_len=seq_len)
    evals = EvalConfig(points=1, tokens=SEQUENCES * seq_len)
    steps = 64 if size < 1e6 else 4
    run = RunConfig(model=model, task=task, optim=OptimConfig(lr=1e-3), batch_size=batch, n_steps=steps, evals=evals)
    return run, Execution.model_validate(how)


def measure(name: str) -> dict[str, Any]:
    """One model, cold and warm, in bytes."""
    run, how = model_run(name)
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (_in_child(name, cache) for _ in range(2))
    planned = memory.estimate(run, how)
    estimate = planned.total + memory.read_ahead_bytes(run)
    process = memory.process_bytes(run, how)
    return {
        "model": name,
        "n_params": n_params(run.model, run.task.seq_len, "total"),
        "batch": f"{run.batch_size} x {run.task.seq_len}",
        "estimate": estimate,
        "xla": warm["xla"],
        "measured": warm["measured"],
        "ratio": estimate / warm["measured"],
        "process_estimate": process,
        "process_measured": cold["process"],
        "process_ratio": process / cold["process"],
        "before": warm["before"],
        "before_cold": cold["before"],
        "measured_cold": cold["measured"],
    }


def _in_child(name: str, cache: str) -> dict[str, Any]:
    environment = {**worker_environment(1), "JAX_COMPILATION_CACHE_DIR": cache, "NPROC": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _child(name: str) -> dict[str, Any]:
    """Train one model here: bytes before, the most while training, the most ever, and XLA's plan."""
    import jax.numpy as jnp

    from scaling.family import Family
    from scaling.lm.train import train
    from scaling.tasks import open_task

    run, how = model_run(name)
    task = open_task(run.task)
    jnp.zeros(8).sum().block_until_ready()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(Family((run,)), task, lambda member: Path(folder) / member.name, how)
    if outcome[run.run_id].kind != "done":
        raise RuntimeError(f"{name} ended as {outcome[run.run_id]}")
    peak, process = _status("VmHWM"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"before": before, "measured": peak - before, "process": max(process, peak), "xla": xla_bytes(run, how)}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def xla_bytes(run: RunConfig, how: Execution) -> int:
    """What XLA plans for the training program, in bytes: from shapes, nothing is trained."""
    import jax
    import jax.numpy as jnp

    from scaling.lm import optim, step
    from scaling.settle import dispatch_steps, settled

    chosen, shape = settled(run, how, "cpu"), step.shape_of(run)
    state = jax.eval_shape(lambda: step.initial_state(shape, 0, chosen))
    tokens = jax.ShapeDtypeStruct((dispatch_steps(run), run.batch_size, run.task.seq_len + 1), jnp.int32)
    program = step.train_program(shape, chosen).lower(state, optim.hyper(run.optim, run.n_steps), tokens, jnp.int32(1)).compile()
    plan = program.memory_analysis()
    return plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [COLUMNS, "|" + "---|" * (COLUMNS.count("|") - 1)]
    for row in rows:
        sizes = [format_bytes(row[key]) for key in ("estimate", "xla", "measured")]
        process = [format_bytes(row[key]) for key in ("process_estimate", "process_measured")]
        cells = [
            row["model"],
            format_count(row["n_params"]),
            row["batch"],
            *sizes,
            f"{row['ratio']:.2f}",
            *process,
            f"{row['process_ratio']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    host = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return (
        f"# Memory: planned and measured\n\n{__doc__.partition(chr(10))[2].strip()}\n\nMeasured on {host}, one thread.\n\n"
        + "\n".join(lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
