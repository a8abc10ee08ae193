"""Corpora and tokenizers of Hugging Face.

From the Hub, streamed or downloaded, and from local folders (`hf:...` on the command line).

Texts are taken in the data set's own order and pass through the same pipeline as any file's, so
equal texts give an equal store. No code of a data set is ever run. What comes from the Hub is
pinned to a commit, and the store's manifest names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError, unknown_choice
from scaling.tasks.corpus.documents import Document, row
from scaling.tasks.corpus.token_store import Source

PREFIX = "hf:"
FORM = "write hf:OWNER/NAME[/CONFIG][:SPLIT], or hf:FOLDER[:SPLIT]"
OFFLINE = (
    "where there is a network: datasets.load_dataset(...).save_to_disk(FOLDER); then name "
    "hf:FOLDER (private ones need `hf auth login`)"
)


@dataclass(frozen=True)
class DatasetRef:
    """A data set as a user names it.

    `folder` where it lies on this machine, else `name` on the Hub.
    """

    name: str
    config: str | None = None
    split: str = "train"
    folder: Path | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}{'/' + self.config if self.config else ''}:{self.split}"


def parse(text: str) -> DatasetRef:
    """The data set that `hf:NAME[/CONFIG][:SPLIT]` names.

    A folder that is there is meant before a name on the Hub.

    Raises ScalingError that says the form.
    """
    named = text.removeprefix(PREFIX)
    name, _, split = named.rpartition(":") if ":" in named else (named, "", "train")
    what, remedy = "names no data set", FORM
    if "[" in text:
        what += " (slices: use --max-documents)"
    if name and re.fullmatch(r"[\w.-]+", split):
        folder, parts = Path(name).expanduser(), name.split("/")
        if folder.is_dir():
            return DatasetRef(name, None, split, folder)
        if folder.exists():
            what, remedy = "is a file: hf: takes folders", "name files without hf:"
        elif name[0] in "/.~":
            what = "no such folder"
        elif len(parts) <= 3 and all(re.fullmatch(r"[\w.-]+", part) for part in parts):
            return DatasetRef("/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split)
    raise ScalingError(what, where=text, remedy=remedy)


@dataclass
class Corpus:
    """An opened data set. `n_documents` and `n_bytes` count what the last pass has read so far."""

    ref: DatasetRef
    column: str
    rows: Any
    revision: str | None
    n_documents: int = 0
    n_bytes: int = 0

    def documents(self) -> Iterator[Document]:
        """Every text in order; each call is a new pass (and for a stream a new download)."""
        self.n_documents = self.n_bytes = 0
        try:
            for number, fields in enumerate(self.rows, 1):
                document = row(f"{self.ref} row {number}", fields[self.column])
                self.n_documents, self.n_bytes = number, self.n_bytes + len(document.text)
                yield document
        except (ScalingError, GeneratorExit):
            raise
        except Exception as error:  # the library, its formats and the network raise many types
            raise _unavailable(self.ref, error) from error

    @property
    def source(self) -> Source:
        """What the manifest says of it."""
        return Source(
            path=str(self.ref),
            n_files=0,
            n_bytes=self.n_bytes,
            n_documents=self.n_documents,
            column=self.column,
            revision=self.revision,
        )


def open_corpus(ref: DatasetRef, column: str, *, streaming: bool) -> Corpus:
    """Open a data set.

    What `save_to_disk` wrote is mapped, any other folder is streamed, the Hub is streamed or
    downloaded first.

    Raises ScalingError where the package, the data set, its split or the column is missing, or the
    Hub cannot be reached.
    """
    try:
        import datasets
    except ImportError:
        raise ScalingError(
            "needs a package that is not installed: datasets",
            where=ref,
            remedy='pip install -e ".[hf]"',
        ) from None
    # datasets < 4 would ask; later ones run no code
    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False
    datasets.disable_progress_bars()
    try:
        rows, revision = _rows(datasets, ref, streaming)
        names = rows.column_names or list(next(iter(rows), {}))
    except ScalingError:
        raise
    except Exception as error:
        raise _unavailable(ref, error) from error
    if column not in names:
        raise unknown_choice("column", column, names, where=ref)
    return Corpus(ref, column, rows.select_columns([column]), revision)


def _rows(datasets: Any, ref: DatasetRef, streaming: bool) -> tuple[Any, str | None]:
    """The data set's rows, and the commit or fingerprint that they come from."""
    if ref.folder is None:
        from huggingface_hub import HfApi

        commit = HfApi().dataset_info(ref.name, timeout=30).sha
        return datasets.load_dataset(
            ref.name, ref.config, split=ref.split, revision=commit, streaming=streaming
        ), commit
    if not any((ref.folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return datasets.load_dataset(str(ref.folder), split=ref.split, streaming=True), None
    dataset = datasets.load_from_disk(str(ref.folder))
    if isinstance(dataset, dict):
        if ref.split not in dataset:
            raise unknown_choice("split", ref.split, dataset, where=f"{PREFIX}{ref.name}")
        dataset = dataset[ref.split]
    elif ref.split != "train":
        what = f"the folder holds one data set and no split {ref.split!r}"
        raise ScalingError(what, where=f"{PREFIX}{ref.name}", remedy="leave out the split")
    return dataset, f"fingerprint {dataset._fingerprint}"


def _unavailable(ref: DatasetRef, error: Exception) -> ScalingError:
    what, remedy = f"cannot be had: {_reason(error)}", OFFLINE
    if ref.folder is not None:
        what = f"cannot be read: {_reason(error)}"
        remedy = "name a folder of save_to_disk, or one of jsonl, parquet, csv or text files"
    return ScalingError(what, where=ref, remedy=remedy)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def tokenizer_file(text: str) -> tuple[Path, str]:
    """The tokenizer.json that `hf:NAME_OR_PATH` names, and a name for it that holds the commit.

    Raises ScalingError where there is none.
    """
    name = text.removeprefix(PREFIX)
    path = Path(name).expanduser()
    if path.is_dir():
        return path / "tokenizer.json", f"{PREFIX}{path.name}"
    if path.is_file() or name[:1] in ("/", ".", "~", ""):
        return path, path.name
    from huggingface_hub import hf_hub_download

    try:  # .../snapshots/<commit>/tokenizer.json
        file = Path(hf_hub_download(name, "tokenizer.json"))
    except Exception as error:
        what = f"no tokenizer can be had: {_reason(error)}"
        remedy = "download its tokenizer.json where there is a network, and give that file"
        raise ScalingError(what, where=text, remedy=remedy) from error
    return file, f"{text}@{file.parent.name[:12]}"
