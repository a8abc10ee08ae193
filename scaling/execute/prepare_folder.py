"""What one call of `scaling run` does with a folder before it trains: it is checked, corrupt files
are set aside, many run files are merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scaling.config.task import TextFacts, TextTask
from scaling.errors import ScalingError
from scaling.execute.lease import Lease
from scaling.execute.options import OnMessage
from scaling.execute.sweep_folder import CorruptPlan, SweepFolder
from scaling.execute.verify import PUBLISHED, inspect
from scaling.formatting import sanitize
from scaling.plan import Plan, PlannedRun
from scaling.plan.document import RunOrigin
from scaling.store import compaction, run_files
from scaling.store.provenance import code_digest, compiler_flags, versions
from scaling.tasks.text import open_corpus


def prepare(
    folder: SweepFolder,
    plan: Plan,
    lease: Lease,
    on_message: OnMessage,
    *,
    simulated: str | None = None,
    allow_changes: bool = False,
) -> list[PlannedRun]:
    """Check the folder, publish the plan, set corrupt files aside; returns what is missing. Inside
    the lease.

    Raises ScalingError for another sweep, for results of another origin, or (74) for a disk that
    refuses.
    """
    with lease.locked():
        folder.check_same_sweep(plan.sweep, simulated)
        now = origin(plan, simulated)
        for change in _changes_of_origin(folder, now, allowed=allow_changes):
            on_message(f"warning: results of two origins: {change}")
        folder.write_plan(plan, now)
        for file in inspect(folder.path, PUBLISHED):
            if file.state != "corrupt":
                continue
            path = folder.path / file.path
            runs, aside = run_files.run_ids_of(path), folder.set_aside(path)
            problem = sanitize(f"{file.path} is corrupt: {file.reason}", 300)
            text = f"warning: {problem}; set aside as damaged/{aside.name}"
            if runs:
                count = f"run {runs[0]} is" if len(runs) == 1 else f"{len(runs)} runs are"
                text += f", {count} trained again"
            on_message(text)
        finished = run_files.finished_run_ids(folder.path)
        missing = [item for item in plan.runs if item.run_id not in finished]
        if simulated is None and missing:
            _reuse_prefix_states(folder, plan, missing, on_message)
    compact_many(folder.path, lease)
    if lease.is_alone():
        folder.clean(finished, complete=not missing)
    return missing


def _reuse_prefix_states(
    folder: SweepFolder, plan: Plan, missing: Sequence[PlannedRun], on_message: OnMessage
) -> None:
    """Continue the stable phase of finished runs for longer ones, where its state was kept."""
    unfinished = {item.run_id for item in missing}
    finished = [item.run for item in plan.runs if item.run_id not in unfinished]
    longest_first = sorted(finished, key=lambda run: -run.n_steps)
    reached = {run.prefix_key: run.n_steps for run in longest_first if run.stable_steps}
    counts = Counter(
        folder.reuse_prefix_state(item.run_id)
        for item in missing
        if item.run.n_steps > reached.get(item.run.prefix_key, item.run.n_steps)
        and not folder.has_checkpoint(item.run_id)
    )
    if counts:
        on_message(
            f"longer runs of finished prefixes: {counts[True]} continue from kept states, "
            f"{counts[False]} are trained from the start (no state was kept: design.extend_to)"
        )


def compact_many(folder: Path, lease: Lease) -> None:
    """Merge the run files of a folder where they have become many."""
    if len(run_files.run_files(folder)) > compaction.COMPACT_ABOVE:
        compaction.compact(folder, lease.locked)


def origin(plan: Plan, simulated: str | None = None) -> RunOrigin:
    """What the runs of a plan are trained by, as plan.json keeps it."""
    task = plan.runs[0].run.task
    corpus = getattr(task, "digest", None) or task.kind
    if simulated is not None:
        return RunOrigin(corpus=corpus, simulated=simulated)
    text = None  # where some runs read only a part of it, on purpose
    tasks = {item.run.task for item in plan.runs}
    if isinstance(task, TextTask) and not task.unique_tokens and len(tasks) == 1:
        manifest = open_corpus(task.corpus).manifest
        text = TextFacts(
            source=", ".join(source.path for source in manifest.sources),
            n_bytes=sum(split.n_bytes for split in manifest.splits.values()),
            held_out_bytes=manifest.splits["val"].n_bytes,
            train_tokens=manifest.splits["train"].n_tokens,
        )
    return RunOrigin(
        corpus=corpus,
        code=code_digest(),
        versions=versions(),
        xla_flags=compiler_flags(),
        text=text,
    )


def _changes_of_origin(folder: SweepFolder, now: RunOrigin, *, allowed: bool) -> list[str]:
    """What has changed since the folder's finished runs were trained, as lines.

    Raises ScalingError unless there is nothing, or it is `allowed`.
    """
    if not run_files.has_runs(folder.path):
        return []
    try:
        before = folder.read_plan()
    except CorruptPlan as error:
        return [
            f"plan.json {error.what}: whether code or corpus have changed is not known; it is "
            "written anew"
        ]
    was, is_now = (
        origin.model_dump(include={"corpus", "code", "xla_flags"}, exclude_none=True)
        | (origin.versions or {})
        for origin in (before, now)
    )
    changes = [
        f"{name} was {was[name] or 'none':.80}, is {is_now[name] or 'none':.80}"
        for name in sorted(was.keys() & is_now)
        if was[name] != is_now[name]
    ]
    if changes and not allowed:
        raise ScalingError(
            f"its finished runs are of another origin: {'; '.join(changes)}",
            where=folder.path,
            remedy="choose another --out folder, restore what has changed, or mix them with "
            "--accept-changes",
        )
    return changes
