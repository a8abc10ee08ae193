import os
import stat
import subprocess
import sys

import pytest

from scaling.config import TextTask
from scaling.errors import ScalingError
from scaling.tasks import open_task, resolve
from scaling.tasks.corpus import stdlib
from scaling.tasks.corpus.token_store import open_store, verify


def test_the_corpus_of_this_interpreter(private_cache):
    store = open_store(stdlib.stdlib_store())
    verify(store)
    facts = store.manifest.splits
    share = facts["val"].n_bytes / (facts["val"].n_bytes + facts["train"].n_bytes)
    assert 0.1 <= share < 0.111
    assert facts["val"].bytes_per_token == 1.0
    assert facts["val"].n_documents > 20
    assert facts["train"].n_tokens > 3_000_000
    assert stat.S_IMODE(private_cache.stat().st_mode) == 0o700
    task = resolve(TextTask(kind="text"))
    assert task.digest == store.manifest.digest
    assert open_task(task).batch("train", 0, 8).shape == (8, 65)


def test_only_ordinary_sources_belong_to_it(tmp_path):
    wanted = ["a.py", "json/decoder.py", "json/__init__.py"]
    others = [
        "test/test_a.py",
        "json/tests/x.py",
        "site-packages/n.py",
        "encodings/cp1.py",
        "_sysconfigdata_x.py",
        "a.txt",
        "config-3/c.py",
    ]
    for name in wanted + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "broken.py").symlink_to("nowhere.py")
    assert list(stdlib.source_files(tmp_path)) == sorted(wanted)
    with pytest.raises(ScalingError, match="no standard library sources"):
        stdlib.source_files(tmp_path / "absent")


def test_large_files_are_never_held_out_and_the_split_is_stable():
    sizes = {f"m{i}.py": 1000 + i for i in range(300)} | {"big.py": 100_000}
    val = stdlib.held_out(sizes)
    assert "big.py" not in val
    assert 0.1 <= sum(sizes[name] for name in val) / sum(sizes.values()) < 0.105
    assert val == stdlib.held_out(dict(reversed(sizes.items())))


def test_a_changed_source_makes_another_store(private_cache, tmp_path, monkeypatch):
    root = tmp_path / "lib"
    root.mkdir()
    for i in range(200):
        (root / f"m{i}.py").write_text(f"x = {i}\n" * 50)
    monkeypatch.setattr(stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    one = stdlib.stdlib_store()
    assert stdlib.stdlib_store() == one
    (root / "m7.py").write_text("y = 1\n")
    other = stdlib.stdlib_store()
    assert open_store(one).manifest.digest != open_store(other).manifest.digest


@pytest.mark.slow
def test_two_processes_build_the_corpus_once(private_cache):
    code = "from scaling.tasks.corpus.stdlib import stdlib_store; print(stdlib_store())"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(folders) == 1
    verify(open_store(stdlib.stdlib_store()))
    assert [name for name in os.listdir(private_cache / "stores") if name.endswith(".tmp")] == []
