"""The first sweep of `scaling init`: a budget, a device and data become a sweep file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from scaling.accounting import DEVICES
from scaling.config import TextTask
from scaling.config.resolve_execution import Kind
from scaling.errors import ScalingError, unknown_choice
from scaling.execute.environment import default_workers
from scaling.execute.options import OnMessage
from scaling.execute.planning import MAX_EPOCHS, repeated_data_warnings
from scaling.formatting import format_bytes, format_flops
from scaling.plan import plan
from scaling.plan.starter_sweep import StarterRequest, StarterSweep, draft, flops_of_minutes
from scaling.tasks import open_task, resolve
from scaling.tasks.corpus.prepare import prepare
from scaling.tasks.corpus.token_store import MANIFEST
from scaling.warning import ResultWarning

TYPICAL = {"gpu": "a100", "tpu": "tpu-v5e"}  # devices by which minutes of "gpu" are counted
MANY_BYTES, MANY_FLOPS = 50_000_000, 1e16  # of text and training, from which tokens beat bytes
BPE_VOCAB_SIZE = 4096


def device_kind(device: str) -> Kind:
    """cpu, gpu or tpu. Raises ScalingError listing the known names."""
    if device not in ("cpu", "gpu", "tpu", *DEVICES):
        raise unknown_choice("device", device, ["cpu", "gpu", "tpu", *DEVICES], where="--device")
    return "cpu" if device == "cpu" else "tpu" if device.startswith("tpu") else "gpu"


def device_flops(minutes: float, device: str) -> float:
    """The FLOPs that a device trains in some minutes; of "gpu" and "tpu" a common one's."""
    if device == "cpu":
        return flops_of_minutes(minutes, default_workers(), None)
    return flops_of_minutes(minutes, 1, DEVICES[TYPICAL.get(device, device)].flops_per_second)


def corpus_task(corpus: str) -> TextTask:
    """The task of a corpus. Raises ScalingError where it is none."""
    try:
        task = TextTask(kind="text", corpus=corpus)
    except ValidationError as error:
        raise ScalingError(
            str(error.errors()[0]["msg"]),
            where="--data",
            remedy="name a folder of text, or one that `scaling data prepare` wrote",
        ) from None
    resolve(task)
    return task


def is_raw_text(data: str) -> bool:
    """Whether `--data` names text that is not prepared yet: a file, or a folder of files."""
    path = Path(data).expanduser()
    is_folder = path.is_dir() and not (path / MANIFEST).exists() and any(path.iterdir())
    return data != "stdlib" and (path.is_file() or is_folder)


def prepare_text(data: str, flops: float, on_message: OnMessage) -> str:
    """Prepare text as a token store in data/NAME; returns its folder. Bytes are the vocabulary, or
    for much text and training 4,096 BPE tokens.
    """
    source = Path(data).expanduser()
    out = Path("data") / (source.resolve().stem if source.is_file() else source.resolve().name)
    if out.resolve() == source.resolve():
        out = out.with_name(f"{out.name}-tokens")
    if (out / MANIFEST).exists():
        on_message(f"using {out}, prepared earlier (delete it after the text has changed)")
        return str(out)
    paths = [source] if source.is_file() else source.rglob("*")
    size = sum(path.stat().st_size for path in paths if path.is_file())
    is_large = size >= MANY_BYTES and flops >= MANY_FLOPS
    tokenizer = "bpe" if is_large else "bytes"
    manifest = prepare([source], out, tokenizer, BPE_VOCAB_SIZE)
    vocabulary = f"{BPE_VOCAB_SIZE} BPE tokens" if is_large else "256 bytes"
    on_message(f"prepared {source} as {out}: {format_bytes(size)}, vocabulary of {vocabulary}")
    for warning in manifest.get("warnings", ()):
        on_message(f"warning: {warning['message']}")
    return str(out)


def first_sweep(
    path: Path, flops: float, kind: Kind, corpus: str
) -> tuple[StarterSweep, list[ResultWarning]]:
    """The sweep file of `path` for a budget, a kind of device and a corpus, with warnings about it.

    Raises ScalingError, with the smallest budget that suffices, for one that is too small.
    """
    opened = open_task(corpus_task(corpus))
    request = StarterRequest(flops, kind, corpus, opened.vocab_size, path)
    sweep = draft(request, lambda item: plan(item, resolve(item.base.task), opened.vocab_size))
    warnings = [*sweep.plan.warnings, *repeated_data_warnings(opened, sweep.plan)]
    for index, warning in enumerate(warnings):
        if passes := warning.data.get("passes"):
            enough = format_flops(float(f"{flops * (MAX_EPOCHS / passes) ** 2:.1g}"))
            message = f"{warning.message}: add text, or take a budget of about {enough} FLOPs"
            warnings[index] = warning.model_copy(update={"message": message})
    return sweep, warnings
