"""What trained the runs of a folder: digests of code and corpus, and versions; told before results of two kinds are mixed."""

from __future__ import annotations

from typing import Any

from scaling import archive
from scaling.errors import ScalingError
from scaling.execute.folder import Damaged, SweepFolder
from scaling.plan import Plan
from scaling.provenance import code_digest, versions


def origin(plan: Plan, simulated: str | None = None) -> dict[str, Any]:
    """What the runs of a plan are trained by, as plan.json keeps it."""
    task = plan.runs[0].run.task
    found: dict[str, Any] = {"corpus": getattr(task, "digest", None) or task.kind, "simulated": simulated}
    if simulated is None:
        found |= {"code": code_digest(), "versions": versions()}
    return found


def check(folder: SweepFolder, now: dict[str, Any], *, accepted: bool) -> list[str]:
    """What has changed since the folder's finished runs were trained, as lines.

    Raises ScalingError unless there is nothing, or it is `accepted`.
    """
    if not (folder.path / "plan.json").exists() or not archive.has_runs(folder.path):
        return []
    try:
        held = folder.read_plan()
    except Damaged:
        return ["plan.json is damaged: whether code or corpus have changed is not known; it is written anew"]
    changed = [text for text in (_difference(name, held.get(name), now.get(name)) for name in ("corpus", "code", "versions")) if text]
    if changed and not accepted:
        raise ScalingError(
            f"its finished runs are of another origin: {'; '.join(changed)}",
            where=str(folder.path),
            remedy="choose another --out folder, restore what has changed, or mix them with --accept-changes",
        )
    return changed


def _difference(name: str, was: Any, now: Any) -> str:
    if was is None or now is None or was == now:
        return ""
    if isinstance(was, dict):
        parts = [f"{key} {was.get(key)} became {now.get(key)}" for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
        return ", ".join(parts)
    return f"{name} was {str(was)[:12]}, is {str(now)[:12]}"
