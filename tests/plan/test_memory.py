"""What runs hold in memory, by shapes alone: more work never needs less, what saves never needs
more, and remedies fit.
"""

import json
import subprocess
import sys
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from scaling import recipe
from scaling.accounting import DEVICES, n_params
from scaling.cli.plan import plan_text
from scaling.config import (
    EvalConfig,
    Execution,
    MeshShape,
    OptimConfig,
    Recipe,
    RunConfig,
    TextTask,
)
from scaling.errors import ScalingError
from scaling.execute import environment, machine
from scaling.execute.machine import device_memory
from scaling.formatting import format_bytes, format_count
from scaling.plan import memory, plan
from scaling.plan.device_fit import (
    USABLE,
    DeviceMemory,
    check_fits,
    suggest_execution,
    to_cli_flags,
)
from scaling.plan.document import plan_document
from scaling.render.rich_table import page
from tests.models import small_model
from tests.sweep_files import tiny

KINDS = st.sampled_from(["cpu", "gpu", "tpu"])


def run_of(
    size=1e6, *, vocab_size=256, seq_len=128, batch=16, precision="float32", averaged=False, **model
):
    shape = recipe.model_for(
        size, Recipe(size_tolerance=1.0), vocab_size=vocab_size, seq_len=seq_len, overrides=model
    )
    task = TextTask(kind="text", seq_len=seq_len)
    evals = EvalConfig(tokens=4 * seq_len, averaged=averaged)
    return RunConfig(
        model=shape,
        task=task,
        optim=OptimConfig(lr=1e-3),
        batch_size=batch,
        n_steps=100,
        precision=precision,
        evals=evals,
    )


RUNS = st.builds(
    run_of,
    st.floats(1e6, 3e9),
    vocab_size=st.sampled_from([256, 4096, 50304]),
    seq_len=st.sampled_from([32, 128, 512, 2048]),
    batch=st.sampled_from([8, 16, 64]),
    precision=st.sampled_from(["float32", "bfloat16"]),
    averaged=st.booleans(),
    ffn=st.sampled_from(["gelu", "swiglu", "relu2"]),
    tie_embeddings=st.booleans(),
    qk_norm=st.booleans(),
)
HOWS = st.builds(
    Execution,
    micro_batch=st.sampled_from([None, 1, 2, 8]),
    remat=st.sampled_from(["none", "block"]),
    layers=st.sampled_from(["auto", "scan"]),
)


def larger(run, **changes):
    model = run.model.model_copy(
        update={key: value for key, value in changes.items() if key in type(run.model).model_fields}
    )
    task = run.task.model_copy(
        update={key: value for key, value in changes.items() if key == "seq_len"}
    )
    rest = {key: value for key, value in changes.items() if key == "batch_size"}
    return run.model_copy(update={"model": model, "task": task, **rest})


@given(RUNS, HOWS, KINDS)
def test_more_work_never_needs_less_memory(run, how, kind):
    chosen = {
        "layers": "scan",
        "loss_chunk": how.loss_chunk or 1024,
    }  # what is chosen by itself changes with depth and tokens
    settled = how.model_copy(update=chosen)
    before = memory.estimate(run, settled, kind).total
    for change in (
        {"batch_size": 2 * run.batch_size},
        {"seq_len": 4 * run.task.seq_len},
        {"n_layers": run.model.n_layers + 1},
    ):
        assert memory.estimate(larger(run, **change), settled, kind).total >= before


@given(RUNS, KINDS)
def test_memory_saving_options_never_need_more_memory(run, kind):
    def needs(**how):
        return memory.estimate(run, Execution(layers="scan", **how), kind)

    assert needs(remat="block").activations <= needs().activations
    whole = needs()
    for size in (run.batch_size // 2, 1):
        part = needs(micro_batch=size)
        assert part.activations < whole.activations
        measured = (
            part.evaluation - whole.evaluation
        )  # of so little training what is measured beside it may be the larger part
        assert (
            part.total - max(0, measured) <= whole.total + part.parameters
        )  # the sum of gradients is the price
    for mesh in (
        MeshShape(data=2),
        MeshShape(data=2, fsdp=2),
        MeshShape(fsdp=4),
        MeshShape(fsdp=4, tensor=2),
    ):
        spread = needs(mesh=mesh)
        assert (spread.moments, spread.activations) <= (whole.moments, whole.activations)


def test_memory_terms_by_hand():
    run = run_of(averaged=True)
    found, size = memory.estimate(run), 4 * n_params(run.model, 128, "total")
    assert (found.parameters, found.moments, found.average) == (size, 2 * size, size)
    assert found.total == sum(
        getattr(found, name) for name in memory.MemoryEstimate.__dataclass_fields__
    )
    half = memory.estimate(run, Execution(mesh=MeshShape(fsdp=2)), "gpu")
    assert (half.parameters, half.moments) == (size // 2, size)
    accumulated = memory.estimate(run, Execution(micro_batch=4))
    assert accumulated.gradients == 2 * found.gradients


def test_fused_attention_keeps_no_scores():
    run = run_of(1e8, seq_len=2048, precision="bfloat16", d_head=64)
    own = memory.estimate(run, Execution(attention="own"), "gpu").activations
    fused = memory.estimate(run, Execution(), "gpu").activations
    scores = 2 * run.batch_size * run.model.n_layers * run.model.n_heads * 2048**2
    assert 0.5 * scores < own - fused < 2 * scores


def test_the_largest_micro_batch_that_fits_is_chosen_before_anything_else():
    run, how = run_of(1e7, batch=64), Execution()
    room = DeviceMemory(
        "a device", "gpu", memory.estimate(run, Execution(micro_batch=8), "gpu").total
    )
    chosen = suggest_execution([run], how, room)
    assert to_cli_flags(chosen, how) == "--micro-batch 8"
    assert room.fits([run], chosen)


def test_remat_is_suggested_before_more_devices():
    run, how = run_of(1e7, batch=64, seq_len=512), Execution()
    smallest = memory.estimate(run, Execution(micro_batch=1), "gpu").total
    room = DeviceMemory("a device", "gpu", smallest - 1)
    chosen = suggest_execution([run], how, room)
    assert chosen.remat == "block"
    assert room.fits([run], chosen)
    room = DeviceMemory("a device", "gpu", int(3 * memory.estimate(run, how, "gpu").parameters))
    chosen = suggest_execution([run], how, room)
    assert chosen.mesh.fsdp > 1
    assert room.fits([run], chosen)
    assert not room.fits(
        [run], chosen.model_copy(update={"mesh": MeshShape(fsdp=chosen.mesh.fsdp // 2)})
    )
    assert suggest_execution([run], how, DeviceMemory("a device", "gpu", 1000)) is None


@given(st.lists(RUNS, min_size=1, max_size=3), KINDS, st.floats(0.05, 1.0))
@settings(max_examples=50)
def test_remedies_fit_all_runs(runs, kind, share):
    how = Execution()
    largest = max(DeviceMemory("", kind, 0).required_bytes(run, how) for run in runs)
    room = DeviceMemory("a device", kind, int(share * largest))
    chosen = suggest_execution(runs, how, room)
    if chosen is not None:
        assert room.fits(runs, chosen)
        for run in runs:
            assert run.batch_size % (chosen.micro_batch or 1) == 0
            assert (chosen.micro_batch or run.batch_size) % (
                chosen.mesh.data * chosen.mesh.fsdp
            ) == 0
    with pytest.raises(ScalingError) if share < 1 else nothing():
        check_fits(runs, how, room)


class nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_memory_error_names_the_need_and_the_options_that_help():
    run = run_of(1e7, batch=64)
    room = DeviceMemory("h100", "gpu", memory.estimate(run, Execution(micro_batch=8), "gpu").total)
    with pytest.raises(ScalingError) as caught:
        check_fits([run, run_of(1e6)], Execution(), room)
    needs = format_bytes(memory.estimate(run, Execution(), "gpu").total)
    has = format_bytes(room.capacity_bytes)
    parameters = format_count(n_params(run.model, 128, "total"))
    assert str(caught.value) == (
        f"run {run.run_id}: {parameters} parameters and 64 x 128 tokens at once need {needs}, "
        f"h100 has {has}\n"
        "  it fits with --micro-batch 8"
    )
    assert caught.value.exit_code == 2
    with pytest.raises(ScalingError, match="fewer --workers, a machine with more memory"):
        check_fits([run], Execution(), DeviceMemory("this machine", "cpu", 10**6))


def test_what_splash_attention_leaves_under_fsdp_is_counted():
    """As libtpu 0.0.42 plans a training step of eight v5e, four sequences each: 13.6 GB."""
    model = small_model(1024, 16, n_layers=24, vocab_size=50304)
    run = RunConfig(
        model=model,
        task=TextTask(kind="text", seq_len=2048),
        optim=OptimConfig(lr=1e-3),
        batch_size=32,
        n_steps=1000,
        precision="bfloat16",
    )
    estimate = memory.estimate(run, Execution(mesh=MeshShape(fsdp=8)), "tpu")
    assert estimate.total - estimate.evaluation == pytest.approx(13.6e9, rel=0.1)


def test_unknown_device_is_rejected_with_the_closest_match():
    with pytest.raises(ScalingError) as caught:
        device_memory("h10", 1)
    known = ", ".join(sorted([*DEVICES, "here"]))
    assert str(caught.value).startswith(
        "--device: unknown device 'h10'\n  did you mean h100? known: "
    )
    assert str(caught.value).endswith(known)


def test_workers_share_the_memory_of_the_machine(monkeypatch):
    facts = {"total_bytes": 64 * 2**30, "available_bytes": 32 * 2**30, "limit_bytes": 8 * 2**30}
    monkeypatch.setattr(environment, "memory_bytes", lambda: facts)
    monkeypatch.setattr(environment, "has_accelerator", lambda: False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert device_memory("here", 4) == DeviceMemory("each of 4 workers here", "cpu", 2 * 2**30)
    monkeypatch.setattr(environment, "memory_bytes", lambda: dict.fromkeys(facts))
    assert device_memory("here", 1).capacity_bytes > 2**60


@pytest.mark.parametrize(("platform", "share"), [("gpu", 1.0), ("tpu", USABLE)])
def test_memory_of_an_accelerator_here_is_what_jax_may_take_of_it(monkeypatch, platform, share):
    here = {"platform": platform, "kind": "toy", "memory_bytes": 80_000_000}
    monkeypatch.setattr(machine, "ask_devices", lambda: {"devices": [here]})
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    expected = DeviceMemory("toy here", platform, int(40_000_000 * share))
    assert device_memory("here", 2) == expected


def test_absent_platform_is_rejected_with_those_available(monkeypatch):
    def ask(changes=None):
        if changes:
            return {
                "backend": "cpu",
                "devices": [{"platform": "cpu", "kind": "cpu", "memory_bytes": None}] * 2,
            }
        return {"error": "RuntimeError: Unable to initialize backend 'tpu'"}

    monkeypatch.setattr(machine, "ask_devices", ask)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(ScalingError) as caught:
        machine.local_memory(1)
    assert str(caught.value) == (
        "JAX_PLATFORMS=tpu: jax finds no such device: RuntimeError: Unable to initialize backend "
        "'tpu'\n"
        "  devices here: 2 x cpu; unset JAX_PLATFORMS, or set it to what is here (cpu always works)"
    )


def test_plan_states_for_each_run_whether_it_fits():
    sweep = tiny(evals={"points": 1, "tokens": 30})
    planned = plan(sweep, sweep.base.task, 16)
    room = device_memory("h100", 1)
    assert (room.kind, room.capacity_bytes) == ("gpu", int(0.92 * 80e9))
    document = plan_document(planned, None, 1, device=room).to_dict()
    assert all(entry["fits"] and entry["remedy"] is None for entry in document["runs"])
    assert shown(document).count("every run fits h100: 68.5 GiB can be used") == 1
    small = DeviceMemory("toy", "gpu", document["runs"][-1]["memory_bytes"] - 1)
    document = plan_document(planned, None, 1, device=small).to_dict()
    assert json.loads(json.dumps(document))["device"] == "toy"
    assert document["runs"][-1]["remedy"] == "--micro-batch 4"
    assert document["runs"][-1]["device_memory_bytes"] == small.capacity_bytes
    assert "runs do not fit toy" in shown(document)


def shown(document):
    text = StringIO()
    Console(file=text, width=200).print(page(*plan_text(document)))
    return text.getvalue()


@pytest.mark.slow
def test_memory_estimate_needs_no_jax():
    code = (
        "import sys, scaling.plan.device_fit, scaling.execute.machine as d; "
        "d.device_memory('tpu-v5e', 1); print({'jax', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
