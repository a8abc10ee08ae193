"""What a results folder, a sweep file or a checkpoint cannot do to the process that opens it."""

import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from scaling import files
from scaling.config.sweep_file import dump_sweep
from scaling.execute.sweep_folder import SweepFolder
from tests import command_line
from tests.execute.sweeping import command, scaling
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow

LAW = "published:hoffmann2022"
PACKAGE = Path(__file__).parents[2] / "scaling"
ESCAPE = "\x1b]0;owned\x07\x1b[31m"


class Mark:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/x",
        "..",
        ".",
        "",
        "a/b",
        "..\\x",
        "x" * 65,
        "-rf",
        ".hidden",
        "a\nb",
        "é" * 40,
    ],
)
def test_a_name_that_is_a_path_is_rejected(tmp_path, name):
    text = dump_sweep(tiny()).replace(
        'name = "tiny"', f"name = {name!r}" if "\n" not in name else 'name = "a\\nb"'
    )
    (tmp_path / "sweep.toml").write_text(text)
    done = command_line.scaling("run", "sweep.toml", "--simulate", LAW, cwd=tmp_path)
    assert done.returncode == 2
    assert "name" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.toml"]


def test_plan_with_paths_as_run_ids_is_rejected(tmp_path):
    (tmp_path / "secret.txt").write_text("secret\n")
    run = {"run_id": "../../secret", "n_params": {"total": 1}, "tokens": 1, "flops": 1.0, "seed": 0}
    files.write_json(tmp_path / "a" / "b" / "plan.json", {"sweep": "x", "runs": [run]})
    done = scaling("status", tmp_path / "a" / "b")
    assert done.returncode == 2
    assert "secret\n" not in done.stdout + done.stderr


def test_symbolic_link_in_place_of_a_run_is_not_followed(tmp_path):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny()))
    assert scaling("run", path, "--out", out, "--simulate", LAW).returncode == 0
    outside = tmp_path / "precious"
    outside.write_text("mine")
    victim = sorted((out / "runs").iterdir())[0]
    victim.unlink()
    victim.symlink_to(outside)
    assert scaling("run", path, "--out", out, "--simulate", LAW).returncode == 0
    assert outside.read_text() == "mine"
    assert not victim.is_symlink()


def test_no_pickle_is_read_from_a_checkpoint(tmp_path):
    from scaling.train import local_checkpoint

    mark, path = tmp_path / "mark", tmp_path / "c.npz"
    held = io.BytesIO()
    np.save(held, np.array([Mark(str(mark))], object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("progress.npy", held.getvalue())
        archive.writestr("leaf_0.npy", held.getvalue())
    with pytest.raises(local_checkpoint.Unreadable):
        local_checkpoint.restore(path, lambda progress: np.zeros(1))
    path.write_bytes(pickle.dumps(Mark(str(mark))))
    with pytest.raises(local_checkpoint.Unreadable):
        local_checkpoint.restore(path, lambda progress: np.zeros(1))
    assert not mark.exists()


def test_no_module_reads_pickles_or_executes_text():
    text = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    forbidden = re.compile(
        r"\bimport pickle\b|\bread_pickle\b|allow_pickle=True|\beval\(|\bexec\(|shell=True|"
        r"os\.system|yaml\.load\(|marshal|dill|joblib"
    )
    assert [str(path) for path, source in text.items() if forbidden.search(source)] == []


def test_text_from_a_folder_reaches_the_terminal_without_control_characters_and_markup(tmp_path):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny()))
    assert scaling("run", path, "--out", out, "--simulate", LAW, "--max-runs", 3).returncode == 0
    document = files.read_json(out / "plan.json")
    run_id = next(
        run["run_id"] for run in document["runs"] if not SweepFolder(out).is_finished(run["run_id"])
    )
    SweepFolder(out).write_failure(run_id, f"{ESCAPE}[/bold] [link=http://x]text")
    for verb in (
        ["status", out],
        ["run", path, "--out", out, "--simulate", LAW, "--max-runs", 1],
        ["report", out],
    ):
        done = scaling(*verb)
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout
    assert "\x1b" not in (out / "report" / "index.html").read_text()


def test_sweep_file_executes_nothing_and_a_hostile_one_is_rejected(tmp_path):
    for text in (
        'name = "!!python/object/apply:os.system [touch mark]"',
        "a = " + "[" * 5000,
        "x" * 2_000_000,
    ):
        path = tmp_path / "sweep.toml"
        path.write_text(text)
        done = scaling("plan", path, "--no-probe", cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "mark").exists()


def test_the_compile_cache_is_private(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(dump_sweep(tiny(design={"kind": "grid", "sizes": ["2k"], "tokens": ["20k"]})))
    env = os.environ | {"SCALING_CACHE": str(tmp_path / "cache")}
    assert scaling("run", path, "--out", tmp_path / "out", "--workers", 1, env=env).returncode == 0
    for folder in (tmp_path / "cache", tmp_path / "cache" / "xla"):
        assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("folder", ["a b", "ü/ñ", "-rf", "quote'\"$x"])
def test_folders_of_any_name(tmp_path, folder):
    (tmp_path / "sweep.toml").write_text(dump_sweep(tiny()))
    env = {name: value for name, value in os.environ.items() if name != "HOME"} | {
        "LANG": "C",
        "TERM": "dumb",
    }
    done = scaling("run", "sweep.toml", f"--out={folder}", "--simulate", LAW, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / folder / "runs").iterdir())) == 4
    assert command("x")  # the command is a list: no shell reads it
