"""Files: whole or absent, checksummed, and an error of the file system is never taken for
corruption.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scaling import files
from scaling.errors import DISK, ScalingError


def fails(times: int, code: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """The function, the first `times` calls of which raise an OSError."""
    left = [times]

    def call(*arguments: Any, **keywords: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return real(*arguments, **keywords)

    return call


def test_any_flipped_bit_raises_checksum_error(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"x": 1.5})
    assert files.read_json(tmp_path / "a.json") == {"x": 1.5}
    data = (tmp_path / "a.json").read_bytes()
    for position in range(len(data)):
        flipped = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(files.ChecksumError):
            files.verify_checksum(flipped)


def test_files_without_checksum_and_of_former_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"x": 2}')
    assert files.read_json(path) == {"x": 2}
    blank = '{"x": 3, "seal": "seal:sha256:' + "0" * 64 + '"}'
    digest = hashlib.sha256(blank.encode()).hexdigest()
    path.write_text(blank.replace("0" * 64, digest))
    assert files.check_file(path)
    assert files.read_json(path) == {"x": 3}
    path.write_text(path.read_text().replace('"x": 3', '"x": 4'))
    with pytest.raises(files.ChecksumError):
        files.read_json(path)


def test_checksum_of_a_large_file_is_verified_chunk_by_chunk(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 3_000_000 + files.PLACEHOLDER.encode() + b"y" * 1000)
    files.append_checksum(path)
    assert files.check_file(path)
    assert path.read_bytes() == files.with_checksum(
        b"x" * 3_000_000 + files.PLACEHOLDER.encode() + b"y" * 1000
    )
    path.write_bytes(path.read_bytes()[:-1] + b"z")
    with pytest.raises(files.ChecksumError):
        files.check_file(path)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT])
def test_transient_read_error_is_retried(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PAUSES", (0.0, 0.0, 0.0))
    files.write_json(tmp_path / "a.json", {"x": 1})
    monkeypatch.setattr(os, "open", fails(2, code, os.open))
    assert files.read_json(tmp_path / "a.json") == {"x": 1}


def test_lasting_read_error_is_a_disk_error_that_names_file_and_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PAUSES", (0.0,))
    files.write_json(tmp_path / "a.json", {"x": 1})
    monkeypatch.setattr(os, "open", fails(9, errno.ESTALE, os.open))
    with pytest.raises(files.DiskError) as caught:
        files.read_json(tmp_path / "a.json")
    assert caught.value.exit_code == DISK
    assert str(tmp_path / "a.json") in str(caught.value)
    assert os.strerror(errno.ESTALE) in str(caught.value)


@pytest.mark.parametrize("what", ["a file", "a link that leads nowhere", "a link to itself"])
def test_something_in_the_place_of_a_folder_is_named(what: str, tmp_path: Path) -> None:
    place = tmp_path / "runs"
    if what == "a file":
        place.write_text("mine")
    else:
        place.symlink_to(place if what == "a link to itself" else "absent")
    for path in (place, place / "a.json"):
        with pytest.raises(files.DiskError) as caught:
            files.write_json(path / "b.json", {"x": 1})
        assert "move away what is there" in str(caught.value)
        if what != "a link to itself":
            assert f"{place} is {what}, not a folder" in str(caught.value)
    if what == "a file":
        with pytest.raises(files.DiskError, match="is a file, not a folder"):
            files.list_files(place, ".json")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to itself"])
def test_what_is_not_a_regular_file_is_rejected_without_waiting(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path)
    with pytest.raises(files.ChecksumError, match="not a regular file"):
        files.read_json(path)
    assert files.list_files(tmp_path, ".json") == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM])
def test_write_once_without_hard_links_keeps_the_first_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fails(9, code, os.link))
    target = tmp_path / "a"
    assert files.write_once(target, lambda path: path.write_text("first"))
    assert not files.write_once(target, lambda path: path.write_text("second"))
    assert target.read_text() == "first"
    assert os.listdir(tmp_path) == ["a"]


def test_folder_that_cannot_be_synced_is_tolerated_and_a_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "fsync", fails(9, errno.EINVAL, os.fsync))
    files.sync(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        files.sync(tmp_path / "a")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE])
def test_failed_write_leaves_no_temporary_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", fails(1, code, os.fsync))
    with pytest.raises(files.DiskError) as caught:
        files.write_text(tmp_path / "a", "new")
    assert caught.value.exit_code == DISK
    assert len(str(caught.value).splitlines()) <= 3
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("address", ["gs://bucket/sweep", "s3://bucket/sweep", "https://x/y"])
def test_object_store_addresses_are_rejected_by_name(address: str) -> None:
    with pytest.raises(ScalingError, match=f"{address.partition('://')[0]}:// addresses"):
        files.write_text(Path(address) / "a", "x")


def test_path_that_is_not_utf8_is_written_and_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"r\xe9sultats")
    files.write_json(folder / "a.json", {"x": 1})
    assert files.read_json(folder / "a.json") == {"x": 1}
    assert files.list_files(folder, ".json") == [folder / "a.json"]


def test_a_new_folder_is_whole_or_absent_and_leaves_no_folders_of_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with pytest.raises(UnicodeEncodeError), files.new_folder(target) as temporary:
        (temporary / "x").write_text("\ud800")  # a file is opened, then the block fails
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(target) as temporary:
        (temporary / "x").write_text("x")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["b"]
    with pytest.raises(files.DiskError) as caught, files.new_folder(target) as temporary:
        (temporary / "x").write_text("y")  # `target` has files: they stay
    assert caught.value.exit_code == DISK
    assert (target / "x").read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_a_new_folder_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScalingError, match="not supported"), files.new_folder(Path("s3://b/x")):
        pass
    assert list(tmp_path.iterdir()) == []
