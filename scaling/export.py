"""A trained model as files that others read.

`model.safetensors` and `config.json`, and the way back.

    model = scaling.export.load("exported")
    model.logits(tokens)          # (batch, time) ids in, float32 (batch, time, vocab) out

`config.json` holds the whole configuration of the run, its counts and its loss, the digest of its
corpus, the tokenizer, and for every array the meaning of its axes. It is this program's own
architecture: no other library's loader knows it by name.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from scaling import __version__, accounting, files
from scaling.config import NConvention, RunConfig, TextTask
from scaling.config.sweep_file import load_run
from scaling.errors import BAD_INPUT, ScalingError, unknown_choice
from scaling.store import run_files

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FORMAT = "scaling-1"
MODEL, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
CONVENTION = (
    "float32; y = x W + b with a Dense kernel stored narrower side first (see axes: d_in,d_out or "
    "d_out,d_in); qkv holds queries, then keys, then values (heads x d_head each, keys and values "
    "n_kv_heads x d_head); the up matrix of swiglu holds the gate, then the value; "
    "norms come before attention and feed-forward, and before the head (final_norm)"
)


@dataclass(frozen=True)
class Model:
    """An exported model.

    Its configuration, `config.json` as written, and its parameters as the program's own functions
    take them.
    """

    run: RunConfig
    config: dict[str, Any]
    params: dict[str, Any]

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Logits, float32 of shape (batch, time, vocab), for ids of shape (batch, time).

        Raises ScalingError for ids outside the vocabulary.
        """
        from scaling.train import saved_params

        return saved_params.logits(self.run, self.params, tokens)


def export_model(
    folder: Path, run_id: str, out: Path, layout: Literal["scaling", "hf"] = "scaling"
) -> dict[str, Any]:
    """Write a finished run's model to the folder `out`, whole or not at all.

    Returns what describes it; that is config.json, or scaling.json next to the config.json of
    Hugging Face in the layout `hf`.

    Raises ScalingError where the run kept no weights, `out` is there, or the model is neither a
    Llama nor a Qwen3 (`hf`).
    """
    _need_safetensors()
    from safetensors.numpy import save_file

    from scaling import hf_export
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.train import saved_params

    files.check_local(out)
    if out.exists():
        raise ScalingError(
            "exists already",
            where=out,
            remedy="name another folder with --out, or delete this one",
        )
    finished = run_files.finished_run_ids(folder)
    if not finished:
        remedy = "train them first: scaling run SWEEP --keep-weights"
        raise ScalingError("holds no finished runs", where=folder, remedy=remedy)
    if run_id not in finished:
        raise unknown_choice("run", run_id, sorted(finished)[:12], where=folder)
    rows, weights = (
        run_files.read_run(folder, run_id),
        SweepFolder(folder).path_of("weights", run_id),
    )
    run = load_run(rows["config"].iloc[0], f"run {run_id}")
    if not weights.exists():
        raise ScalingError(
            f"run {run_id} has kept no weights",
            where=folder,
            remedy="train it with them: scaling run SWEEP --keep-weights --out ANOTHER_FOLDER",
        )
    if layout == "hf":
        hf_export.check_exportable(run.model)
    arrays, axes = saved_params.load_params(weights, run), saved_params.axes(run)
    tokenizer, texts = _tokenizer(run)
    document = _document(run, rows) | {
        "tokenizer": tokenizer,
        "convention": CONVENTION,
        "run": run.model_dump(mode="json"),
        "tensors": {
            name: {
                "shape": list(arrays[name].shape),
                "dtype": str(arrays[name].dtype),
                "axes": list(axis),
            }
            for name, axis in axes.items()
        },
    }
    described = json.dumps(document, indent=1, allow_nan=False) + "\n"
    if layout == "hf":
        arrays = hf_export.tensors(run.model, arrays, axes)
        texts = hf_export.texts(run, tokenizer or {}, texts.get(TOKENIZER))
        texts[run_files.MODEL_DESCRIPTION] = described
    else:
        texts[CONFIG] = described
    metadata = {"format": FORMAT if layout == "scaling" else "pt", "run_id": run_id}
    with files.new_folder(out) as building:
        save_file(arrays, building / MODEL, metadata=metadata)
        for name, text in texts.items():
            (building / name).write_text(text, encoding="utf-8")
    return document


def _document(run: RunConfig, rows: pd.DataFrame) -> dict[str, Any]:
    """What config.json says of a run."""
    model, seq_len = run.model, run.task.seq_len
    is_loss = (rows["split"] == "val") & (rows["metric"] == "loss") & (rows["step"] == run.n_steps)
    losses, loss = rows.loc[is_loss, ["value", "stderr"]].astype(float), None
    if len(losses):
        value, stderr = losses.iloc[-1].tolist()
        loss = {"value": value, "stderr": None if math.isnan(stderr) else stderr}
    return {
        "format": FORMAT,
        "version": __version__,
        "run_id": run.run_id,
        "sweep": str(rows["sweep"].iloc[0]),
        "n_params": {
            name: accounting.n_params(model, seq_len, name) for name in get_args(NConvention)
        },
        "tokens": run.tokens,
        "flops": accounting.train_flops(model, seq_len, run.tokens, "exact"),
        "loss": loss,
        "corpus_digest": run.task.digest if isinstance(run.task, TextTask) else None,
    }


def _tokenizer(run: RunConfig) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The tokenizer of the run's corpus, and its tokenizer.json by name where there is one; None if
    the corpus has changed.
    """
    from scaling.tasks.text import open_corpus

    if not isinstance(run.task, TextTask):
        return None, {}
    try:
        store = open_corpus(run.task.corpus)
    except ScalingError as error:
        if error.exit_code != BAD_INPUT:
            raise
        return None, {}
    if run.task.digest not in (None, store.manifest.digest):
        return None, {}
    path = store.folder / TOKENIZER
    texts = {TOKENIZER: path.read_text(encoding="utf-8")} if path.is_file() else {}
    return store.manifest.tokenizer.model_dump(mode="json"), texts


def load(folder: str | Path) -> Model:
    """The model of a folder that `export_model` wrote.

    Raises ScalingError where files are missing or do not fit one another.
    """
    _need_safetensors()
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from scaling.train import saved_params

    folder = Path(folder)
    remedy = "name a folder written by `scaling results export-model`"
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        named = load_file(folder / MODEL)
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise ScalingError(
                f"{CONFIG} was not written by this program", where=folder, remedy=remedy
            )
        run = load_run(json.dumps(config["run"]), str(folder / CONFIG))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ScalingError(
            f"no exported model: {str(error)[:120]}", where=folder, remedy=remedy
        ) from error
    return Model(run, config, saved_params.unflatten(run, named))


def _need_safetensors() -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise ScalingError(
            "models are exported with a package that is not installed: safetensors",
            remedy='pip install -e ".[hf]"',
        ) from None
