"""Programs compiled for GPUs and TPUs that are not here: `python -m benchmarks.aot [--only CASE]`.

XLA compiles for a described device on a CPU, and the compiled program tells nearly everything but
the clock: memory, traffic, the kernels and collectives that were chosen. Each case compiles the
initial state, a training step and an evaluation, checks what must hold of them (`check`), and
prints a row. `MFU at most` is a roofline: every scheduled operation takes the larger of its
arithmetic at the data sheet's peak and its traffic at the data sheet's bandwidth. No measurement.

Needs the extra `aot` (1.6 GB of compilers, Linux x86-64): `pip install --no-deps` of its packages.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks import hlo, hlo_roofline
from scaling import accounting
from scaling.config import Execution, MeshShape, ModelConfig, OptimConfig, RunConfig, TextTask
from scaling.config.resolve_execution import DEVICE_LOSS_CHUNK, resolve
from scaling.plan import memory
from scaling.plan.device_fit import USABLE

VOCAB_SIZE, SEQ_LEN, STEPS = 50304, 2048, 4
MODELS = {  # layers, d_model, heads, head width
    "tiny": (2, 512, 8, 64),
    "125M": (12, 768, 12, 64),
    "350M": (24, 1024, 16, 64),
    "1.3B": (24, 2048, 16, 128),
}
COMPILERS = {"gpu": "jax_cuda12_plugin", "tpu": "libtpu"}
EXPERTS = {"n_experts": 8, "top_k": 2}
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


ONE_DEVICE, CUBE = MeshShape(), MeshShape(data=2, fsdp=2, tensor=2)


@dataclass(frozen=True)
class Case:
    """One model on devices of one kind; `batch` sequences of SEQ_LEN in a step of all of them, in
    `slices` that only the slow network joins.
    """

    device: Literal["h100", "tpu-v5e", "tpu-v4"]
    model: str
    batch: int
    mesh: MeshShape = ONE_DEVICE
    remat: Literal["none", "block"] = "none"
    micro_batch: int | None = None
    experts: bool = False
    slices: int = 1

    @property
    def execution(self) -> Execution:
        """How it is executed, with the choices that depend on the device open."""
        return Execution(mesh=self.mesh, remat=self.remat, micro_batch=self.micro_batch)

    @property
    def kind(self) -> Literal["gpu", "tpu"]:
        """The kind of device."""
        return "gpu" if self.device == "h100" else "tpu"


CASES = {
    "h100-tiny": Case("h100", "tiny", 4),
    "h100x8-tiny-tensor": Case("h100", "tiny", 16, CUBE),
    "v5e-tiny": Case("tpu-v5e", "tiny", 4),
    "h100x8-tiny-experts": Case("h100", "tiny", 16, CUBE, experts=True),
    "v5ex8-tiny-experts": Case("tpu-v5e", "tiny", 16, MeshShape(fsdp=8), experts=True),
    "v5e2x4-tiny": Case("tpu-v5e", "tiny", 16, MeshShape(data=2, fsdp=4), slices=2),
    "h100-125M": Case("h100", "125M", 16),
    "h100-350M": Case("h100", "350M", 8),
    "h100-1.3B": Case("h100", "1.3B", 8),
    "h100x8-125M-data": Case("h100", "125M", 128, MeshShape(data=8)),
    "h100x8-350M-data": Case("h100", "350M", 64, MeshShape(data=8)),
    "h100x8-1.3B-data": Case("h100", "1.3B", 64, MeshShape(data=8)),
    "h100x8-125M-fsdp": Case("h100", "125M", 128, MeshShape(fsdp=8)),
    "h100x8-350M-fsdp": Case("h100", "350M", 64, MeshShape(fsdp=8)),
    "h100x8-1.3B-fsdp": Case("h100", "1.3B", 64, MeshShape(fsdp=8)),
    "h100x8-125M-tensor": Case("h100", "125M", 64, CUBE),
    "h100x8-350M-tensor": Case("h100", "350M", 64, CUBE),
    "h100x8-1.3B-tensor": Case("h100", "1.3B", 32, CUBE),
    "h100x8-125M-experts": Case("h100", "125M", 64, MeshShape(fsdp=4, tensor=2), experts=True),
    "v5e-125M": Case("tpu-v5e", "125M", 4),
    "v5e-350M": Case("tpu-v5e", "350M", 2),
    "v5e-1.3B": Case("tpu-v5e", "1.3B", 1, remat="block"),
    "v5ex8-125M-fsdp": Case("tpu-v5e", "125M", 32, MeshShape(fsdp=8)),
    "v5ex8-350M-fsdp": Case("tpu-v5e", "350M", 32, MeshShape(fsdp=8)),
    "v5ex8-1.3B-fsdp": Case("tpu-v5e", "1.3B", 64, MeshShape(fsdp=8), "block"),
    "v5ex8-125M-experts": Case("tpu-v5e", "125M", 16, MeshShape(fsdp=8), experts=True),
    "v4-125M": Case("tpu-v4", "125M", 4),
    "v4-350M": Case("tpu-v4", "350M", 2),
}


@dataclass
class Row:
    """What a case compiled to. Bytes are of one device; `faults` is empty if all checks hold.

    Of a program that does not fit the device the compiler says its memory alone.
    """

    case: str
    fits: bool = True
    memory: int = 0
    planned: int = 0
    traffic: float = 0.0
    mfu: float = 0.0
    mfu_exposed: float = 0.0
    collectives: dict[str, float] = field(default_factory=dict)
    compile_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def model_run(case: Case) -> RunConfig:
    """The run whose programs are compiled."""
    layers, d_model, heads, d_head = MODELS[case.model]
    model = ModelConfig(
        n_layers=layers,
        d_model=d_model,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=d_head,
        d_ff=4 * d_model,
        vocab_size=VOCAB_SIZE,
        **(EXPERTS if case.experts else {}),
    )
    return RunConfig(
        model=model,
        task=TextTask(kind="text", seq_len=SEQ_LEN),
        optim=OptimConfig(lr=1e-3, warmup_steps=10),
        batch_size=case.batch,
        n_steps=1000,
        precision="bfloat16",
    )


def described_devices(case: Case) -> tuple[Any, ...]:
    """Devices that are not here. Raises RuntimeError where no compiler is installed."""
    from jax.experimental import topologies

    n = case.mesh.n_devices
    if case.kind == "tpu":
        n //= case.slices
        shape = "v4:2x2x1" if case.device == "tpu-v4" else "v5e:2x4" if n > 4 else "v5e:2x2"
        topology = topologies.get_topology_desc(shape, "tpu", num_slices=case.slices)
    else:
        topology = topologies.get_topology_desc("", "cuda", topology=f"1x1x{n}", target_config=H100)
    return tuple(topology.devices[: case.mesh.n_devices])


def programs(case: Case) -> dict[str, tuple[Any, int]]:
    """The lowered programs `train`, `eval` and `init`, and how many arrays the state has."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

    from scaling.train import optim, step
    from scaling.train.program import program_key
    from scaling.train.sharding import BATCH

    run = model_run(case)
    execution = resolve(run, case.execution, case.kind)
    devices = described_devices(case)
    key = program_key(run, execution)._replace(devices=devices)
    sharder, draw = key.sharder, functools.partial(step.draw_state, key)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    state = jax.eval_shape(draw, seed)
    if sharder.is_sharded:
        whole = NamedSharding(sharder.mesh, PartitionSpec())
        by_batch = NamedSharding(sharder.mesh, PartitionSpec(None, BATCH))
        shardings = sharder.shardings(state)
    else:
        whole = by_batch = SingleDeviceSharding(devices[0])  # type: ignore[assignment]
        shardings = jax.tree.map(lambda _: whole, state)

    def abstract(shape: tuple[int, ...], dtype: Any, sharding: Any = whole) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    state = jax.tree.map(
        lambda leaf, where: abstract(leaf.shape, leaf.dtype, where), state, shardings
    )
    n_fields = len(optim.OptimHyperparams._fields)
    hyper = optim.OptimHyperparams(*[abstract((), jnp.float32)] * n_fields)
    tokens = abstract((STEPS, run.batch_size, SEQ_LEN + 1), jnp.int32, by_batch)
    count = abstract((), jnp.int32)
    platform = "cuda" if case.kind == "gpu" else "tpu"

    def lower(program: Any, *arguments: Any) -> Any:
        return program.trace(*arguments).lower(lowering_platforms=(platform,))

    train = step.train_program(key)
    lowered = {
        "train": lower(train, state, hyper, tokens, count),
        "eval": lower(step.eval_program(key), state.params, tokens),
        "init": lower(jax.jit(draw, out_shardings=shardings), abstract((), jnp.uint32)),
    }
    n_leaves = len(jax.tree.leaves(state))
    return {name: (program, n_leaves) for name, program in lowered.items()}


def compile_case(name: str, keep: Path | None = None, only: Sequence[str] = ()) -> Row:
    """Compile a case and check it; `keep` is a folder for the compiled programs' text."""
    case, row, began = CASES[name], Row(name), time.monotonic()
    run, n = model_run(case), case.mesh.n_devices
    device = accounting.DEVICES[case.device]
    estimate = memory.estimate(run, case.execution, case.kind)
    row.planned = estimate.total - estimate.evaluation
    for program, (lowered, n_leaves) in programs(case).items():
        if only and program not in only:
            continue
        try:
            compiled = lowered.compile()
        except RuntimeError as error:
            used = re.search(r"HLO temporaries \(([\d.]+)G\) exceeds", str(error))
            if used is None:
                raise
            row.fits, row.memory = False, round(float(used.group(1)) * 2**30)
            row.memory += estimate.parameters + estimate.moments
            if estimate.total <= USABLE * device.memory_bytes:
                row.faults.append("does not fit, and the planner says that it does")
            break
        text = compiled.as_text()
        if keep:
            (keep / f"{name}.{program}.hlo").write_text(text)
        row.faults += [f"{program}: {fault}" for fault in faults(program, text, case, n_leaves)]
        if program != "train":
            continue
        plan = compiled.memory_analysis()
        row.memory = plan.argument_size_in_bytes + plan.temp_size_in_bytes
        row.memory += plan.output_size_in_bytes - plan.alias_size_in_bytes
        if case.model != "tiny" and abs(row.planned / row.memory - 1.0) > 0.15:
            row.faults.append(f"planned memory is {row.planned / row.memory:.2f} of XLA's")
        roofline = hlo_roofline.roofline(text, device, n)
        flops = accounting.train_flops(run.model, SEQ_LEN, run.batch_tokens, "exact")
        ideal = flops / n / device.flops_per_second
        row.traffic, row.collectives = roofline.traffic, roofline.collectives
        row.mfu = ideal / max(roofline.seconds, roofline.link_seconds)
        row.mfu_exposed = ideal / (roofline.seconds + roofline.link_seconds)
    row.compile_seconds = time.monotonic() - began
    return row


def faults(program: str, text: str, case: Case, n_leaves: int) -> list[str]:
    """What should not be so in a compiled program."""
    layers, d_model, _, _ = MODELS[case.model]
    module, wrong = hlo.Module(text), []
    scheduled = hlo_roofline.operations(module, case.mesh.n_devices)
    if "f64[" in text:
        wrong.append("float64")
    if program == "init":
        return wrong
    sequences = case.batch if case.micro_batch is None else case.micro_batch
    tokens = sequences * SEQ_LEN // (case.mesh.data * case.mesh.fsdp)
    products = [product for each in scheduled for product in each.products]
    router_flops = 2 * tokens * d_model * EXPERTS["n_experts"] if case.experts else 0
    if any("f32" in product.dtypes and product.flops > router_flops for product in products):
        wrong.append("a float32 product")
    kernel = "fmha" if case.kind == "gpu" else "tpu_custom_call"
    n_kernels = sum(each.times for each in scheduled if kernel in each.op)
    if n_kernels < layers * (2 if program == "train" else 1):
        wrong.append(f"{n_kernels} attention kernels for {layers} layers")
    activation = tokens * d_model // case.mesh.tensor
    head = d_model * VOCAB_SIZE  # a share of it is no activation

    def is_activation(array: hlo.Array) -> bool:
        return array.size >= (head if VOCAB_SIZE in array.sides else activation)

    moved = [
        each.op
        for each in scheduled
        if each.op in ("all-to-all", "collective-permute")
        and each.link_bytes
        and any(is_activation(array) for array in hlo.arrays(each.shape))
    ]
    if moved:
        wrong.append(f"{len(moved)} all-to-all or collective-permute of activations")
    logits = tokens * VOCAB_SIZE // case.mesh.tensor
    sizes = (array.size for each in scheduled for array in hlo.arrays(each.shape))
    if tokens > DEVICE_LOSS_CHUNK and max(sizes) >= logits:
        wrong.append("logits of the whole batch")
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry", text, re.DOTALL)
    donated = len(re.findall(r"(?:may|must)-alias", aliases.group(1))) if aliases else 0
    if program == "train" and donated < n_leaves:
        wrong.append(f"{donated} of {n_leaves} arrays of the state are donated")
    return wrong


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| case | batch | memory GB | planned / XLA | traffic GB a step | MFU at most "
        "| collectives "
        "not hidden | sent between devices, GB a step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sent = {op: f"{sent / 1e9:.2f}" for op, sent in row.collectives.items() if sent > 5e6}
        figures = [
            f"{row.traffic / 1e9:.0f}",
            f"{row.mfu:.2f}",
            f"{row.mfu_exposed:.2f}",
            ", ".join(f"{op} {gb}" for op, gb in sent.items()) or "none",
        ]
        memory_gb = f"{row.memory / 1e9:.1f}" + ("" if row.fits else ", does not fit")
        ratio = f"{row.planned / row.memory:.2f}" if row.memory else "not compiled"
        cells = [row.case, CASES[row.case].batch, memory_gb, ratio]
        lines.append(f"| {' | '.join(map(str, [*cells, *(figures if row.fits else [''] * 4)]))} |")
    return "\n".join(lines)


def main() -> None:
    """Compile, check, print; exit with 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only",
        nargs="*",
        choices=list(CASES),
        default=[name for name in CASES if "tiny" not in name],
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--programs", nargs="*", default=[])
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="write the compiled programs there"
    )
    asked = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in asked.only:
        module = COMPILERS[CASES[name].kind]
        if importlib.util.find_spec(module) is None:
            reason = f"{module} is not installed; `make aot` installs it (the extra `aot`, 1.6 GB)"
            print(f"{name}: skipped, {reason}", file=sys.stderr)
            continue
        rows.append(compile_case(name, asked.keep, asked.programs))
        print(json.dumps(asdict(rows[-1])), file=sys.stderr, flush=True)
    print(json.dumps([asdict(row) for row in rows]) if asked.json else table(rows))
    for row in [] if asked.json else rows:
        for fault in row.faults:
            print(f"{row.case}: {fault}")
    sys.exit(any(row.faults for row in rows))


if __name__ == "__main__":
    main()
