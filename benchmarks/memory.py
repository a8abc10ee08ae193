"""What training holds in memory, against the planner's estimate: `python -m benchmarks.memory
[--json] [--write docs/memory.md]`.

Five models of the recipe from 50k to 50M parameters, each trained for a few steps in two processes
of one thread on a CPU:

- The process: `measured` is the most memory (ru_maxrss) that a worker ever held, with the settings
of workers and nothing
  compiled before. The planner's figures are `memory.process_bytes`, which `scaling run` holds
  against the machine (`least`),
  and that with all temporary buffers a second time (`most`): a worker keeps what it frees, because
  faulting it in again
  costs speed, and glibc before 2.38 may find no room for a large aligned buffer where an equal one
  was.
- The run: `measured` is the most memory (VmHWM) while it trains, above what the process held just
before (VmRSS). By then
  the process has trained a model of a thousand parameters, so that code and libraries are there;
  programs come from the
  cache that the first process filled, so that the compiler does not count; and the C library
  returns what is freed, so that
  only what is in use counts. The planner's figure is `memory.estimate(run).total` and the batches
  read ahead. `XLA` is the
  compiler's own plan for the training step: arguments, results and temporary buffers.
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

from scaling import recipe
from scaling.accounting import n_params
from scaling.config import (
    EvalConfig,
    Execution,
    ModelConfig,
    OptimConfig,
    Recipe,
    RunConfig,
    SyntheticTask,
)
from scaling.execute.environment import ALLOCATOR, worker_environment
from scaling.formatting import format_bytes, format_count
from scaling.plan import memory

ROOT = Path(__file__).parents[1]
SEQUENCES = 4  # held-out windows: as few as do not hide what a step needs
MODELS = {  # size: (vocabulary, sequence length, batch, execution)
    "50k": (256, 128, 64, {}),
    "500k": (256, 128, 64, {}),
    "2M": (4096, 256, 32, {}),
    "10M": (4096, 256, 16, {}),
    "50M": (50304, 256, 8, {}),
}
COLUMNS = (
    "| model | N total | batch | run: estimate | XLA | measured | ratio | process: least | most |"
    " measured |"
)


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--child", choices=list(MODELS), help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=["run", "process"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(_child(asked.child, asked.kind)))
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
    run = RunConfig(
        model=model,
        task=task,
        optim=OptimConfig(lr=1e-3),
        batch_size=batch,
        n_steps=steps,
        evals=evals,
    )
    return run, Execution.model_validate(how)


def measure(name: str) -> dict[str, Any]:
    """One model in both processes, in bytes."""
    run, how = model_run(name)
    with tempfile.TemporaryDirectory() as cache:
        worker, exact = (_in_child(name, kind, cache) for kind in ("process", "run"))
    estimate = memory.estimate(run, how).total + memory.read_ahead_bytes(run)
    process = memory.process_bytes(run, how)
    return {
        "model": name,
        "n_params": n_params(run.model, run.task.seq_len, "total"),
        "batch": f"{run.batch_size} x {run.task.seq_len}",
        "estimate": estimate,
        "xla": exact["xla"],
        "measured": exact["measured"],
        "ratio": estimate / exact["measured"],
        "before": exact["before"],
        "process_least": process,
        "process_most": process + memory.estimate(run, how).temporary,
        "process_measured": worker["process"],
    }


def _in_child(name: str, kind: str, cache: str) -> dict[str, Any]:
    environment = {
        **worker_environment(1),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "NPROC": "1",
        "JAX_PLATFORMS": "cpu",
    }
    if kind == "run":
        environment = {key: value for key, value in environment.items() if key not in ALLOCATOR}
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name, "--kind", kind]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _child(name: str, kind: str) -> dict[str, Any]:
    """Train one model here: bytes before, the most while training, the most
    ever, and XLA's plan.
    """
    run, how = model_run(name)
    if kind == "process":
        _train(run, how)
        return {"process": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    small = ModelConfig(
        n_layers=1, d_model=8, n_heads=1, n_kv_heads=1, d_head=8, d_ff=8, vocab_size=16
    )
    task = SyntheticTask(kind="synthetic", n_facts=16, n_symbols=16, seq_len=8)
    _train(
        run.model_copy(update={"model": small, "task": task, "batch_size": 1, "n_steps": 2}), how
    )
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    _train(run, how)
    return {"before": before, "measured": _status("VmHWM") - before, "xla": xla_bytes(run, how)}


def _train(run: RunConfig, how: Execution) -> None:
    from scaling.config.run_groups import RunGroup
    from scaling.tasks import open_task
    from scaling.train.trainer import train

    with tempfile.TemporaryDirectory() as folder:
        outcome = train(
            RunGroup((run,)), open_task(run.task), lambda member: Path(folder) / member.name, how
        )
    if outcome[run.run_id].kind != "done":
        raise RuntimeError(f"{run.run_id} ended as {outcome[run.run_id]}")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def xla_bytes(run: RunConfig, how: Execution) -> int:
    """What XLA plans for the training program, in bytes: from shapes, nothing is trained."""
    import jax
    import jax.numpy as jnp

    from scaling.config.resolve_execution import dispatch_steps, resolve
    from scaling.train import optim, step
    from scaling.train.program import program_key

    key = program_key(run, resolve(run, how, "cpu"))
    state = jax.eval_shape(lambda: step.initial_state(key, 0))
    tokens = jax.ShapeDtypeStruct(
        (dispatch_steps(run), run.batch_size, run.task.seq_len + 1), jnp.int32
    )
    program = (
        step.train_program(key)
        .lower(state, optim.hyper(run.optim, run.n_steps), tokens, jnp.int32(1))
        .compile()
    )
    plan = program.memory_analysis()
    return (
        plan.temp_size_in_bytes
        + plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
    )


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [COLUMNS, "|" + "---|" * (COLUMNS.count("|") - 1)]
    for row in rows:
        sizes = [format_bytes(row[key]) for key in ("estimate", "xla", "measured")]
        process = [
            format_bytes(row[key]) for key in ("process_least", "process_most", "process_measured")
        ]
        cells = [
            row["model"],
            format_count(row["n_params"]),
            row["batch"],
            *sizes,
            f"{row['ratio']:.2f}",
            *process,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    host = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return (
        f"# Memory: planned and measured\n\n{__doc__.partition(chr(10))[2].strip()}\n\nMeasured "
        f"on {host}, one thread.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
