"""The first sweep of `scaling init`: a budget, a device and data become a sweep file."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from scaling.accounting import DEVICES
from scaling.config import TextTask
from scaling.config.resolve_execution import Kind
from scaling.errors import ScalingError, unknown_choice
from scaling.execute.environment import default_workers
from scaling.execute.options import OnMessage
from scaling.execute.planning import MAX_EPOCHS, repeated_data_warnings
from scaling.formatting import format_bytes, format_count, format_flops
from scaling.plan import plan
from scaling.plan.starter_sweep import (
    StarterRequest,
    StarterSweep,
    draft,
    flops_of_minutes,
    two_digits,
)
from scaling.tasks import open_task, resolve
from scaling.tasks.corpus.documents import describe_sources, list_files
from scaling.tasks.corpus.prepare import prepare
from scaling.tasks.corpus.token_store import MANIFEST, open_store
from scaling.warning import ResultWarning, WarningCode, warn

TYPICAL = {"gpu": "a100", "tpu": "tpu-v5e"}  # devices by which minutes of "gpu" are counted
MANY_BYTES, MANY_FLOPS = 50_000_000, 1e16  # of text and training, from which tokens beat bytes
BPE_VOCAB_SIZE = 4096
DATA_REMEDY = 'name a folder of text, one that `scaling data prepare` wrote, or "stdlib"'


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


def check_data(data: str, patterns: Sequence[str] = ()) -> str:
    """`data`, where it is "stdlib", a token store, a file or a folder of text. Raises ScalingError
    where it is none of them, or no file of text for `patterns` to choose from.
    """
    path = Path(data).expanduser()
    if is_raw_text(data):
        list_files([path], None, patterns)
    elif patterns:
        raise ScalingError(
            "--glob chooses among the files of a folder of text",
            where=f"--data {data}",
            remedy="leave it out, or name such a folder",
        )
    elif data == "stdlib" or path.exists():
        corpus_task(data)
    else:
        raise ScalingError("no such file or folder", where=f"--data {data}", remedy=DATA_REMEDY)
    return data


def corpus_task(corpus: str) -> TextTask:
    """The task of a corpus. Raises ScalingError where it is none."""
    try:
        task = TextTask(kind="text", corpus=corpus)
    except ValidationError as error:
        what = str(error.errors()[0]["msg"])
        raise ScalingError(what, where="--data", remedy=DATA_REMEDY) from None
    resolve(task)
    return task


def is_raw_text(data: str) -> bool:
    """Whether `--data` names text that is not prepared yet: a file, or a folder of files."""
    path = Path(data).expanduser()
    is_folder = path.is_dir() and not (path / MANIFEST).exists()
    return data != "stdlib" and (path.is_file() or is_folder)


def prepare_text(
    data: str, flops: float, on_message: OnMessage, patterns: Sequence[str] = ()
) -> str:
    """Prepare text as a token store in data/NAME; returns its folder. Bytes are the vocabulary, or
    for much text and training 4,096 BPE tokens. Of a folder `patterns` choose the files.

    Raises ScalingError where data/NAME holds another text, or this one as it was before a change.
    """
    source = Path(data).expanduser()
    out = Path("data") / (source.resolve().stem if source.is_file() else source.resolve().name)
    if out.resolve() == source.resolve():
        out = out.with_name(f"{out.name}-tokens")
    listed = list_files([source], out, patterns)
    size = sum(path.stat().st_size for path in listed.files[source])
    left_out = f"; left out: {listed.unmatched} other files" if listed.unmatched else ""
    if (out / MANIFEST).exists():
        _check_same_text(out, listed.files)
        on_message(f"using {out}, prepared earlier from {source}: {format_bytes(size)}{left_out}")
        return str(out)
    is_large = size >= MANY_BYTES and flops >= MANY_FLOPS
    tokenizer = "bpe" if is_large else "bytes"
    manifest = prepare([source], out, tokenizer, BPE_VOCAB_SIZE, patterns=patterns)
    vocabulary = f"{BPE_VOCAB_SIZE} BPE tokens" if is_large else "256 bytes"
    facts = f"{format_bytes(size)}, vocabulary of {vocabulary}{left_out}"
    on_message(f"prepared {source} as {out}: {facts}")
    for warning in manifest.get("warnings", ()):
        on_message(f"warning: {warning['message']}")
    return str(out)


def _check_same_text(out: Path, files: dict[Path, list[Path]]) -> None:
    """Raise ScalingError unless the store `out` was made from these files as they are now."""
    (now,) = describe_sources(files)
    stored = open_store(out).manifest.sources
    written = (out / MANIFEST).stat().st_mtime
    changed = [path for path in itertools.chain(*files.values()) if path.stat().st_mtime > written]
    if [Path(each.path).expanduser().resolve() for each in stored] != [Path(now.path).resolve()]:
        before = " and ".join(each.path for each in stored)
        difference = f"it was prepared from {before}, not from {now.path}"
    elif (stored[0].n_files, stored[0].n_bytes) != (now.n_files, now.n_bytes):
        was, is_now = (
            f"{each.n_files} files of {each.n_bytes:,} bytes" for each in (stored[0], now)
        )
        difference = f"{now.path} had {was} and has {is_now}"
    elif changed:
        difference = f"{changed[0]} has changed since"
    else:
        return
    raise ScalingError(
        f"holds another text: {difference}",
        where=out,
        remedy=f"delete {out} to prepare it again, or prepare another store: "
        f"scaling data prepare {shlex.quote(now.path)} --out {shlex.quote(f'{out}-2')}",
    )


def first_sweep(
    path: Path, flops: float, kind: Kind, corpus: str
) -> tuple[StarterSweep, list[ResultWarning]]:
    """The sweep file of `path` for a budget, a kind of device and a corpus, with warnings about it.

    Raises ScalingError, with a budget that suffices, for one that is too small.
    """
    opened = open_task(corpus_task(corpus))

    def sweep_of(flops: float) -> tuple[StarterSweep, list[ResultWarning]]:
        request = StarterRequest(flops, kind, corpus, opened.vocab_size, path)
        sweep = draft(
            request, lambda drafted: plan(drafted, resolve(drafted.base.task), opened.vocab_size)
        )
        return sweep, repeated_data_warnings(opened, sweep.plan)

    sweep, repeated = sweep_of(flops)
    warnings = list(sweep.plan.warnings)
    for warning in repeated:
        passes = warning.data["passes"]
        limit = 1 if passes <= MAX_EPOCHS else MAX_EPOCHS
        message = f"{warning.message}: give {format_count(passes / limit, 2)} times the text"
        less = two_digits(flops * (limit / passes) ** 2)  # tokens grow as the root of the budget
        try:
            while any(each.data["passes"] > limit for each in sweep_of(less)[1]):
                less = two_digits(less / 1.5)
            message += f", or --budget {format_flops(less)}"
        except ScalingError:  # too small for a sweep
            message += "; every budget repeats this one"
        warnings.append(warning.model_copy(update={"message": message}))
    if (n_val := opened.n_tokens("val")) < (n_eval := sweep.plan.sweep.evals.tokens):
        message = f"{n_val:,} held-out tokens, of {n_eval:,} for an evaluation: losses are noisier"
        warnings.append(warn(WarningCode.OTHER, message, tokens=n_val))
    return sweep, warnings
