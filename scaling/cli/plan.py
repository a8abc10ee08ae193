"""The command `plan`."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

from scaling.cli.options import (
    COUNT,
    MFU,
    OVERRIDES,
    SWEEP,
    WORKERS,
    ExecutionOptions,
    device_time,
)
from scaling.cli.output import TableOutput, echo_err, option
from scaling.formatting import (
    format_bytes,
    format_count,
    format_flops,
    format_seconds,
)
from scaling.units import flops_option

SHOWN, SHOWN_CELLS = 1000, 40  # rows of a table: a hundred thousand take minutes to lay out
EXPECTED = "Expected precision of the fit"


def plan(
    sweep: Path = SWEEP,
    overrides: list[str] | None = OVERRIDES,
    *,
    workers: int | None = WORKERS,
    probe: bool = option(
        "Time a few shapes on this machine to estimate seconds (cached).", default=True
    ),
    device: str | None = option(
        "Say whether each run fits this device: h100, tpu-v5e, ... or here.", "Device", "NAME"
    ),
    count: int | None = COUNT,
    mfu: float | None = MFU,
    execution: ExecutionOptions,
    target: str | None = option(
        "The budget whose optimum is to be predicted; default 10 x the largest planned.",
        EXPECTED,
        "FLOPS",
    ),
    law_from: str | None = option(
        "The law to expect; default one through the middle of the plan.",
        EXPECTED,
        "FIT.json|published:NAME",
    ),
    noise: float | None = option(
        "Standard deviation of a run's log loss; default that of the fit, or 0.01.", EXPECTED, "SD"
    ),
    output: TableOutput,
) -> None:
    """Show every run with N, D, C, batch, learning rate, steps, seconds and memory; trains nothing.

    Also shows the intervals that a fit of these runs is expected to have.

    Example: scaling plan sweeps/demo.toml

    Example: scaling plan sweeps/demo.toml optim.lr=3e-3 'design.budgets=[3e10,1e11]' --no-probe
    """
    from scaling.config import mesh
    from scaling.config.overrides import as_shell_words
    from scaling.execute.machine import device_memory, resolve_workers
    from scaling.execute.planning import plan_sweep
    from scaling.execute.timing import measure_speed
    from scaling.plan.document import plan_document
    from scaling.predict.design import expected_of_plan

    times = device_time(device, count, mfu, None)
    chosen = execution.execution()
    n_workers = resolve_workers(workers, chosen)
    memory = device_memory(device, n_workers) if device else None
    goal = None if target is None else flops_option(target, "--target")
    planned = plan_sweep(sweep, overrides=overrides or (), on_message=echo_err)
    for item in planned.runs:
        mesh.check(item.run, chosen, chosen.mesh.n_devices)
    if probe:
        echo_err("timing a few shapes on this machine (cached afterwards; --no-probe skips it) ...")
    if times is not None:
        echo_err(
            f"all runs: {format_flops(planned.flops)} FLOPs, {times.hours_for(planned.flops):.3g} "
            f"hours on {times.count} {times.device} at an MFU of {times.mfu:g}"
        )
    expectation = None
    if planned.sweep.supports_law_fit or target is not None:
        expectation = expected_of_plan(planned, goal, law_from, noise).to_dict()
    document = plan_document(
        planned,
        measure_speed(planned.runs, n_workers, chosen) if probe else None,
        n_workers,
        execution=chosen,
        device=memory,
        expected=expectation,
    ).to_dict()
    if output.as_csv:
        n_infeasible = len(document["infeasible"])
        echo_err(f"{len(planned.runs)} runs; {n_infeasible} infeasible cells (--json says why)")
    output.emit(
        document | {"warnings": document["warnings"] if output.as_json else []},  # printed already
        lambda: plan_text(document),
        f"scaling run {as_shell_words(sweep, overrides or ())}",
        rows=document["runs"],
    )


def plan_text(document: dict[str, Any]) -> list[object]:
    """What `scaling plan` prints: the runs, the infeasible cells with their reasons, the totals."""
    from scaling.render.table import record_table

    runs, infeasible = document["runs"], document["infeasible"]
    counts = ("n_params_with_head", "n_params", "n_params_nonembedding")
    convention = "blocks and head (with_head), then total and non-embedding"
    if any(run["n_params_active"] < run["n_params_with_head"] for run in runs):
        counts = ("n_params_active", "n_params", "n_params_nonembedding")
        convention = (
            "blocks and head, of experts those of a token (active), then total and non-embedding"
        )
    rows = [
        {
            "run": run["run_id"],
            "N (total, non-emb)": " ".join(format_count(run[name]) for name in counts),
            "shape": f"{run['n_layers']}x{run['d_model']}",
            "D": run["tokens"],
            "D/N": f"{run['tokens_per_param']:.3g}",
            "C": run["flops"],
            "batch": run["batch_tokens"],
            "lr": f"{run['lr']:.2e}",
            "steps": run["n_steps"],
            "time": run["seconds"],
            "memory": run["memory_bytes"],
        }
        for run in runs
    ]
    title = f"{document['sweep']}: {len(runs)} runs, {format_flops(document['flops'])} FLOPs"
    parts: list[object] = [
        record_table(
            "plan",
            title,
            rows,
            max_rows=SHOWN,
            integer=("N (total, non-emb)", "shape", "D/N", "lr"),  # words that stand to the right
            seconds=("time",),
            bytes=("memory",),
        ),
        f"N: {convention}; shape: layers x width; C: exact FLOPs; batch in tokens",
    ]
    if document["merged"]:
        parts.append(f"{document['merged']} cells give the same model as another cell")
    if document["shared_prefixes"]:
        share = document["flops"] / document["flops_alone"]
        alone = format_flops(document["flops_alone"])
        parts.append(
            f"{document['shared_prefixes']} shared prefixes serve several budgets each: "
            f"{100 * share:.0f} % of the {alone} FLOPs of runs alone"
        )
    if "device" in document:
        parts.append(_device_fit(document))
    title = f"infeasible: {len(infeasible)} cells"
    parts.append(record_table("infeasible", title, infeasible, max_rows=SHOWN_CELLS))
    if document["seconds"] is not None:
        parts.append(
            f"\nabout {format_seconds(document['seconds'])} of training, "
            f"{format_seconds(document['wall_seconds'])} with {document['workers']} worker(s)"
        )
    return parts + (_expectation(document["expected"]) if "expected" in document else [])


def _device_fit(document: dict[str, Any]) -> object:
    """Whether the runs fit the device; of those that do not, what would make them fit."""
    from scaling.render.table import record_table

    capacity = format_bytes(document["runs"][0]["device_memory_bytes"])
    large = [
        {
            "run": run["run_id"],
            "needs": run["memory_bytes"],
            "fits with": run["remedy"] or "nothing: a smaller model or batch",
        }
        for run in document["runs"]
        if not run["fits"]
    ]
    if not large:
        return f"every run fits {document['device']}: {capacity} can be used"
    title = (
        f"\n{len(large)} of {len(document['runs'])} runs do not fit {document['device']}: "
        f"{capacity} can be used"
    )
    return record_table("device", title, large, max_rows=SHOWN_CELLS, bytes=("needs",))


def _expectation(expected: dict[str, Any]) -> list[object]:
    """The expected intervals as lines of text, warnings last."""
    warnings = [f"warning: {warning['message']}" for warning in expected["warnings"]]
    if expected["unavailable"]:
        return [f"\nno parametric fit can be expected: {expected['unavailable']}", *warnings]
    a, n = expected["a"], expected["n_star"]
    z = NormalDist().inv_cdf((1 + expected["ci"]) / 2)
    text = (
        f"\nexpected of a parametric fit ({100 * expected['ci']:g} % intervals, losses with "
        f"{100 * expected['noise']:.2f} % noise): N* grows as C^a, a {a['value']:.3f} "
        f"[{a['lo']:.3f}, {a['hi']:.3f}]; at {format_flops(expected['target'])} FLOPs N* "
        f"{format_count(n['value'])} [{format_count(n['lo'])}, {format_count(n['hi'])}], "
        f"L* within {100 * math.expm1(z * expected['sd_log_loss']):.1f} %"
    )
    bias = f"; isoFLOP {expected['grid_bias']}" if expected["grid_bias"] else ""
    return [text, f"law {expected['law']}{bias}", *warnings]
