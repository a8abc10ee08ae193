"""What the losses of a fit were measured on: two losses compare on the same text, in the same
tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from scaling.config.base import Document
from scaling.points.run_tables import data_id, variant_fields

if TYPE_CHECKING:
    from scaling.config import RunConfig

UNIT = "nats per token"


class LossComparability(Document):
    """Whether the losses of two sweeps compare (null: not known), and why."""

    compare: bool | None
    why: str


def evaluation_of(runs: pd.DataFrame | None, eval_set: str | None = None) -> dict[str, Any]:
    """What the runs of a results folder (`config` as text or as a dictionary) were evaluated on
    (the held-out text of their corpus, or an `eval_set`); empty for a foreign table.

    `corpus` is the digest of the tokens, so another tokenizer is another corpus; `simulated` names
    the law of simulated runs.
    """
    if runs is None or "config" not in runs.columns or runs.empty:
        return {}
    from scaling.config.sweep_file import load_run

    config = runs["config"].iloc[0]
    run = load_run(
        config if isinstance(config, str) else json.dumps(config), f"run {runs['run_id'].iloc[0]}"
    )
    return {
        "task": run.task.kind,
        "corpus": eval_sets(run).get(eval_set or "", data_id(run.task)),
        "unit": UNIT,
        "simulated": run.simulated,
    }


def eval_sets(run: RunConfig) -> dict[str, str]:
    """The evaluation sets of a run: the digest of each by name."""
    return {item.name: item.digest for item in run.evals.sets if item.digest}


def comparable(one: Mapping[str, Any], two: Mapping[str, Any]) -> LossComparability:
    """Whether the losses of two fit documents compare."""
    (ours, theirs), models = (
        [each["source"].get(name) or {} for each in (one, two)] for name in ("evaluation", "model")
    )
    if not ours or not theirs:
        why = (
            "It is not known on what the losses were measured. What follows on compute holds only "
            "if both sweeps were evaluated on the same text, in the same tokens and the same unit."
        )
        return LossComparability(compare=None, why=why)
    for name, differing in (("unit", "in other units"), ("corpus", "on different data")):
        values = [str(each.get(name)) for each in (ours, theirs)]
        if values[0] != values[1]:
            shown = " and ".join(value[:16] for value in values)
            why = f"Losses are not comparable: they were measured {differing} ({shown})."
            return LossComparability(compare=False, why=why)
    if bool(ours.get("simulated")) != bool(theirs.get("simulated")):
        why = "Losses are not comparable: one sweep was trained, the other simulated."
        return LossComparability(compare=False, why=why)
    why = "Both sweeps were evaluated on the same corpus in the same tokens."
    lengths = [each.get("seq_len") or "several" for each in models]
    if ours.get("simulated"):
        why = f"Both sweeps are simulated, from {ours['simulated']} and {theirs['simulated']}."
    elif lengths[0] != lengths[1]:
        why = (
            f"Same corpus, but contexts of {lengths[0]} and {lengths[1]} tokens: the longer one "
            "has an easier evaluation."
        )
    return LossComparability(compare=True, why=why)


LAW_TASKS = {"text", "synthetic"}


def supports_one_law(table: pd.DataFrame, with_variants: bool = False) -> bool:
    """Whether one law of N and D may hold for all runs: on text or facts, differing in size, data
    and seed alone; `with_variants` in a part of the model too, of which a fit warns.
    """
    is_of_law = set(table["task"].unique()) <= LAW_TASKS
    return is_of_law and (with_variants or not variant_fields(table))
