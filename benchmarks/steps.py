"""Tokens a second of one training step, against nanoGPT and NanoDO in the same run: `python -m
benchmarks.steps [--quick]`.

Every cell is a size (non-embedding parameters), a sequence length and a vocabulary; AdamW, the same
batch for all. A
contestant has two cores: in the large table as two single-threaded processes side by side, which is
what `scaling run` does
with a CPU and faster for every contestant, and in the small one as one process of two threads. All
stand ready together and
take turns; of each the best turn counts.

- nanoGPT and NanoDO as their repositories have them: `--peers PYTHON --nanogpt FOLDER --nanodo
FOLDER` (see `step_peers.py`);
  nanoGPT in bfloat16 too, by autocast.
- plain JAX: nanoGPT's architecture without tricks (`step_plain.py`). Needs no peer.
- ours in the peers' architecture. Without biases both are one `ModelConfig` (LayerNorm, learned
positions, tied embedding,
  tanh GELU, all heads); what differs is that nanoGPT's GELU is the exact one, and that NanoDO does
  not clip gradients.
- ours as the default recipe builds it for the same number of non-embedding parameters.
- both of ours with `precision = "bfloat16"`: bfloat16 operands of products, float32 weights and
sums.

The figure of a cell, `ratio`, is ours in the peers' architecture over the faster of the peers in
float32, in tokens a second;
without peers, over plain JAX. For bfloat16 it is ours over the fastest peer of either precision. A
fraction of peak is exact FLOPs (`accounting.train_flops`: matmuls, causal
attention, head) over the best float32 product of 1024 x 1024 matrices seen in the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_tables import HALF, NANODO, NANOGPT, OURS, PLAIN, RECIPE, page, summarise
from scaling.accounting import n_params, train_flops
from scaling.config import ModelConfig, OptimConfig, Precision, Recipe, RunConfig, TextTask
from scaling.execute.environment import cores, worker_environment
from scaling.recipe import model_for
from scaling.tasks import open_task

ROOT = Path(__file__).parents[1]
CORES = 2
COMPILED = "nanoGPT, torch.compile"
DATA_SECONDS = 1.0
PEAK, CALM, PATIENCE = "peak", 1.15, 3


@dataclass(frozen=True)
class Shape:
    """A model of the peers' kind and its batch in sequences; 10M is nanoGPT's own
    `train_shakespeare_char`.
    """

    n_layers: int
    d_model: int
    n_heads: int
    batch: int


SHAPES = {"50k": Shape(2, 48, 2, 32), "1M": Shape(5, 128, 4, 16), "10M": Shape(6, 384, 6, 8)}
CELLS = tuple(
    (size, seq_len, vocab_size)
    for vocab_size in (256, 4096)
    for seq_len in (128, 256)
    for size in SHAPES
)
QUICK = tuple((size, 128, 256) for size in SHAPES)
ALONE = QUICK[:2]
Cell = tuple[str, int, int]


def their_model(cell: Cell) -> ModelConfig:
    """The architecture of nanoGPT (bias = False, its default) and of NanoDO."""
    size, _, vocab_size = cell
    shape = SHAPES[size]
    return ModelConfig(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_heads,
        d_head=shape.d_model // shape.n_heads,
        d_ff=4 * shape.d_model,
        vocab_size=vocab_size,
        tie_embeddings=True,
        norm="layernorm",
        pos="learned",
        ffn="gelu",
        qk_norm=False,
        bias=False,
    )


def recipe_model(cell: Cell) -> ModelConfig:
    """Our default model with as many non-embedding parameters."""
    size = n_params(their_model(cell), cell[1], "nonembedding")
    return model_for(size, Recipe(), vocab_size=cell[2], seq_len=cell[1], params="nonembedding")


def run_of(model: ModelConfig, cell: Cell, precision: Precision = "float32") -> str:
    """A run of the model with the cell's batch, as JSON."""
    optim = OptimConfig(lr=1e-3, warmup_steps=100, weight_decay=0.1, b2=0.95)
    task = TextTask(kind="text", seq_len=cell[1])
    fields = {"batch_size": SHAPES[cell[0]].batch, "n_steps": 100_000, "precision": precision}
    return RunConfig(model=model, task=task, optim=optim, **fields).model_dump_json()


class Process:
    """A contestant's process: ready when it has printed its facts, then one
    measurement an `ask`.
    """

    def __init__(self, command: list[str], threads: int, tuned: bool) -> None:
        count = {"NPROC": str(threads), "OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
        environment = (
            worker_environment(cores() // threads) if tuned else dict(os.environ)
        ) | count
        # open as long as the process
        self.noise = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.noise,
        )
        self._facts: dict[str, Any] | None = None
        self.best = float("inf")

    @property
    def facts(self) -> dict[str, Any]:
        """What it says when it is ready; waits for that."""
        self._facts = self._facts or self.hear()
        return self._facts

    def ask(self) -> None:
        """Start a measurement."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The next answer; a process that died ends the benchmark with its last words."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.noise.seek(0)
            raise SystemExit(
                f"{' '.join(map(str, self.process.args))[:200]}\n{self.noise.read()[-2000:]}"
            )
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
        self.noise.close()


def commands(
    cell: Cell, given: argparse.Namespace, threads: int
) -> dict[str, tuple[list[str], bool]]:
    """The contestants of a cell: command, and whether our worker environment is part of it."""
    size, seq_len, vocab_size = cell
    shape = json.dumps(
        asdict(SHAPES[size]) | {"seq_len": seq_len, "vocab_size": vocab_size, "threads": threads}
    )
    peers = {
        NANOGPT: ("nanogpt", given.nanogpt),
        NANOGPT + HALF: ("nanogpt-bfloat16", given.nanogpt),
        COMPILED: ("nanogpt-compiled", given.compile and given.nanogpt),
        NANODO: ("nanodo", given.nanodo),
    }
    mine = [sys.executable, "-m"]
    return {
        name: ([given.peers, "-m", "benchmarks.step_peers", peer, str(folder), shape], False)
        for name, (peer, folder) in peers.items()
        if folder
    } | {
        PLAIN: ([*mine, "benchmarks.step_plain", shape], False),
        OURS: ([*mine, "benchmarks.step_ours", run_of(their_model(cell), cell)], True),
        RECIPE: ([*mine, "benchmarks.step_ours", run_of(recipe_model(cell), cell)], True),
        OURS + HALF: (
            [*mine, "benchmarks.step_ours", run_of(their_model(cell), cell, "bfloat16")],
            True,
        ),
        RECIPE + HALF: (
            [*mine, "benchmarks.step_ours", run_of(recipe_model(cell), cell, "bfloat16")],
            True,
        ),
    }


def take_turns(entrants: dict[str, list[Process]], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of a step by entrant, process and round; the entrants take turns, the processes of
    one run at the same time.

    Goes on until `rounds` were calm (PEAK, the matmul, took at most CALM times its best), at most
    PATIENCE times as many.
    """
    for process in (process for group in entrants.values() for process in group):
        assert process.facts  # all are ready, and quiet, before the first turn
    seconds: dict[str, list[list[float]]] = {
        name: [[] for _ in group] for name, group in entrants.items()
    }
    calm = 0
    while calm < rounds and len(seconds[PEAK][0]) < PATIENCE * rounds:
        for name, group in entrants.items():
            for process in group:
                process.ask()
            for process, heard in zip(group, seconds[name], strict=True):
                heard.append(process.hear())
        best = entrants[PEAK][0].best = min(entrants[PEAK][0].best, *seconds[PEAK][0])
        calm += seconds[PEAK][0][-1] <= CALM * best
    return seconds


def one_cell(
    cell: Cell, given: argparse.Namespace, peak: Process, processes: int
) -> dict[str, Any]:
    """All contestants of a cell: each one process with all cores, or `processes` that share the
    cores, all at the same time.
    """
    begun, threads = time.perf_counter(), CORES // processes
    entrants = {
        name: [Process(command, threads, tuned) for _ in range(processes)]
        for name, (command, tuned) in commands(cell, given, threads).items()
    }
    seconds = take_turns(entrants | {PEAK: [peak]}, given.rounds)
    found = {
        name: contestant(cell, name, group[0].facts, seconds[name])
        for name, group in entrants.items()
    }
    for process in (process for group in entrants.values() for process in group):
        process.close()
    noise = float(np.median(seconds[PEAK][0])) / peak.best
    speeds = ", ".join(f"{name} {row['tokens_per_second']:,.0f}" for name, row in found.items())
    say(
        f"{label(cell)}, {processes} at a time: {speeds} ({time.perf_counter() - begun:.0f} s, "
        f"noise {noise:.2f})"
    )
    return {
        "cell": label(cell),
        "batch": SHAPES[cell[0]].batch,
        "noise": noise,
        "contestants": found,
    }


def contestant(
    cell: Cell, name: str, facts: dict[str, Any], seconds: list[list[float]]
) -> dict[str, Any]:
    """The row of a contestant; the best turn counts, and processes side by side add up."""
    model = recipe_model(cell) if name.startswith(RECIPE) else their_model(cell)
    counted = n_params(model, cell[1], "nonembedding")
    if facts.get("n_params", counted) != counted:
        raise SystemExit(
            f"{name} has {facts['n_params']} parameters in {label(cell)}, not {counted}"
        )
    tokens = SHAPES[cell[0]].batch * cell[1]
    speed = max(sum(tokens / each for each in turn) for turn in zip(*seconds, strict=True))
    flops = train_flops(model, cell[1], 1, "exact")
    return {
        "n_params": counted,
        "flops_per_token": flops,
        "seconds": seconds,
        "tokens_per_second": speed,
    } | facts


def start_up(folder: Path) -> dict[str, float]:
    """Seconds from the imports' end to the end of the first step of the recipe's 1M model: cold,
    and with a warm cache.
    """
    cell = ("1M", 128, 256)
    environment = worker_environment(1) | {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PLATFORMS": "cpu",
    }
    command = [
        sys.executable,
        "-m",
        "benchmarks.step_ours",
        run_of(recipe_model(cell), cell),
        "once",
    ]
    seconds = [
        json.loads(
            subprocess.run(
                command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(4)
    ]
    return {"cold_seconds": seconds[0], "warm_seconds": min(seconds[1:])}


def data_speed() -> dict[str, float]:
    """Tokens a second that `Task.batch` reads of the memory-mapped standard library: windows in the
    order of training, all over the file.
    """
    task, batch = (
        open_task(TextTask(kind="text", corpus="stdlib", seq_len=128)),
        SHAPES["50k"].batch,
    )
    best, index = 0.0, 0
    for _ in range(3):
        begun, first = time.perf_counter(), index
        while time.perf_counter() - begun < DATA_SECONDS / 3:
            task.batch("train", index, batch)
            index += 1
        best = max(best, (index - first) * batch * task.seq_len / (time.perf_counter() - begun))
    return {"tokens_per_second": best}


def label(cell: Cell) -> str:
    """`1M-128-256`: size, sequence length, vocabulary."""
    return "-".join(map(str, cell))


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def machine(facts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What was measured on, and the versions of all libraries that took part."""
    info = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    )
    names = [
        line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")
    ]
    versions = {
        name: version for each in facts for name, version in each.get("versions", {}).items()
    }
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": CORES,
        "python": platform.python_version(),
        "numpy": np.__version__,
    } | versions


def arguments() -> argparse.Namespace:
    """The command line."""
    ask = argparse.ArgumentParser(
        prog="python -m benchmarks.steps", description="Tokens a second of one training step."
    )
    ask.add_argument(
        "--peers",
        metavar="PYTHON",
        help="an interpreter with torch, jax, flax, optax and ml_collections",
    )
    ask.add_argument(
        "--nanogpt", metavar="FOLDER", type=Path, help="a checkout of karpathy/nanoGPT"
    )
    ask.add_argument(
        "--nanodo", metavar="FOLDER", type=Path, help="a checkout of google-deepmind/nanodo"
    )
    ask.add_argument(
        "--compile",
        action="store_true",
        help="nanoGPT through torch.compile as well (needs a C++ compiler)",
    )
    ask.add_argument("--quick", action="store_true", help=f"only {', '.join(map(label, QUICK))}")
    ask.add_argument(
        "--cells", help=f"some of {','.join(map(label, CELLS))}; nothing else is measured"
    )
    ask.add_argument("--rounds", type=int, default=5, help="calm turns of each contestant")
    ask.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    ask.add_argument("--write", type=Path, metavar="FILE", help="write the tables as a page")
    given = ask.parse_args()
    known = {label(cell): cell for cell in CELLS}
    wanted = (
        given.cells.split(",") if given.cells else list(map(label, QUICK if given.quick else CELLS))
    )
    if unknown := set(wanted) - set(known):
        ask.error(f"no such cell: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    if (given.nanogpt or given.nanodo) and not given.peers:
        ask.error("--nanogpt and --nanodo need --peers PYTHON")
    given.wanted = [known[name] for name in wanted]
    return given


def measured(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, as one document."""
    peak = Process([sys.executable, "-m", "benchmarks.step_plain", "peak"], CORES, False)
    document: dict[str, Any] = {"rounds": given.rounds, "one_process": []}
    document["cells"] = [one_cell(cell, given, peak, CORES) for cell in given.wanted]
    if not given.cells:
        document["one_process"] = [one_cell(cell, given, peak, 1) for cell in ALONE]
        document |= {"start_up": start_up(folder / "start-up"), "data": data_speed()}
    peak.close()
    everyone = [entrant for row in document["cells"] for entrant in row["contestants"].values()]
    document["machine"] = machine([peak.facts, *everyone])
    document["peak_flops_per_second"] = peak.facts["flops"] / peak.best
    return summarise(document)


def main() -> None:
    """Measure, print the tables, and write what was asked for."""
    given = arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as name:
        os.environ["SCALING_CACHE"] = name
        document = measured(given, Path(name))
    text = page(document)
    print(text)
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if given.write:
        given.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
