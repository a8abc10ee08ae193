"""`scaling init` and `scaling schema`: what they write, what they ask, what they refuse."""

import json
import os
import shutil

import pytest

from scaling.config.sweep_file import load_sweep, schema
from scaling.execute.environment import default_workers
from scaling.plan.starter_sweep import flops_of_minutes
from scaling.tasks.corpus.token_store import open_store
from tests.command_line import scaling


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 2000)
    scaling("data", "prepare", "text.txt", "--out", "store", code=0)
    return tmp_path


@pytest.mark.slow
def test_flags_and_answers_write_the_same_file(place):
    given = ("--budget", "1e13", "--device", "h100", "--data", "store")
    flags = scaling("init", "flags.toml", *given, code=0)
    asked = scaling("init", "asked.toml", said="1e13\nh100\nstore\n")
    assert asked.stderr.count("[") == 3
    assert "How many FLOPs" not in asked.stdout
    assert (place / "asked.toml").read_text().replace("asked", "flags") == (
        place / "flags.toml"
    ).read_text()
    sweep = load_sweep(place / "flags.toml")
    assert (sweep.name, sweep.base.task.corpus, sweep.base.precision) == (
        "flags",
        "store",
        "bfloat16",
    )
    said = flags.stdout.splitlines()
    assert said[-1] == "next: scaling plan flags.toml"
    assert "warning: up to" in flags.stderr  # 84,000 bytes are read many times over


def test_plan_of_an_init_file_equals_its_preview(place):
    said = json.loads(
        scaling(
            "init", "my first.toml", "--budget", "1e13", "--data", "store", "--yes", "--json"
        ).stdout
    )
    document = json.loads(scaling("plan", "my first.toml", "--no-probe", "--json").stdout)
    assert (said["name"], said["runs"], said["device"]) == (
        "my-first",
        len(document["runs"]),
        "cpu",
    )
    assert said["flops"] < 1e13


@pytest.mark.parametrize(
    ("said", "words"),
    [("1e13\n", "--device: no answer"), ("1e13\nabacus\n", "unknown device 'abacus'")],
)
def test_wrong_init_answer_exits_2_and_writes_nothing(place, said, words):
    before = sorted(place.iterdir())
    assert words in scaling("init", "first.toml", said=said, code=2).stderr
    assert sorted(place.iterdir()) == before


def test_init_keeps_an_existing_file(place):
    (place / "first.toml").write_text("mine")
    assert "exists already" in scaling("init", "first.toml", "--yes", code=2).stderr
    assert (place / "first.toml").read_text() == "mine"


def test_the_schema_is_printed_or_written_over_an_older_one_only(tmp_path):
    assert json.loads(scaling("schema").stdout) == schema()
    out = tmp_path / "sweep.schema.json"
    for _ in range(2):
        written = scaling("schema", "--out", out)
        assert "#:schema ./sweep.schema.json" in written.stdout
    assert json.loads(out.read_text()) == schema()
    out.write_text("mine")
    scaling("schema", "--out", out, code=2)
    assert out.read_text() == "mine"


def test_a_folder_of_text_is_prepared_and_its_repetition_is_a_warning(place):
    (place / "notes").mkdir()
    (place / "text.txt").rename(place / "notes" / "a.txt")
    made = scaling("init", "mine.toml", "--minutes", "10", "--data", "notes", code=0)
    assert load_sweep(place / "mine.toml").base.task.corpus == "data/notes"
    assert "prepared notes as data/notes: 80.1 KiB, vocabulary of 256 bytes" in made.stderr
    tokens = max(run["tokens"] for run in planned(place, "mine.toml")["runs"])
    more = tokens / (0.9 * 82_000) / 4
    said = made.stderr.partition(": give ")[2]
    assert float(said.split()[0]) == pytest.approx(more, rel=0.05)
    assert "times the text, or --budget 1.6e10\n" in said
    again = scaling("init", "less.toml", "--budget", "1e12", "--data", "notes")
    assert "using data/notes, prepared earlier" in again.stderr
    passes = float(again.stderr.partition("warning: up to ")[2].split()[0])
    assert passes < 4 * more
    assert "8,128 held-out tokens, of 65,536 for an evaluation" in again.stderr


def test_a_short_text_is_given_the_budget_that_fits_it(place):
    lines = (f"line {i} of a text, {i * 7919 % 1000}\n" for i in range(60_000))
    (place / "long.txt").write_text("".join(lines))
    made = scaling("init", "repeats.toml", "--budget", "1e14", "--data", "long.txt", code=0)
    budget = made.stderr.partition(", or --budget ")[2].split()[0]
    less = scaling("init", "less.toml", "--budget", budget, "--data", "long.txt", code=0)
    tokens = max(run["tokens"] for run in planned(place, "less.toml")["runs"])
    n_train = open_store(place / "data" / "long").manifest.splits["train"].n_tokens
    assert 2 * n_train < tokens <= 4 * n_train
    assert "Muennighoff" not in less.stderr
    (place / "short.txt").write_text("".join(f"line {i}\n" for i in range(3000)))
    made = scaling("init", "short.toml", "--budget", "1e12", "--data", "short.txt", code=0)
    assert "times the text; every budget repeats this one" in made.stderr


def test_a_pattern_chooses_the_files_of_a_folder_of_text(place):
    (place / "notes").mkdir()
    (place / "text.txt").rename(place / "notes" / "a.md")
    (place / "notes" / "b.py").write_text("x = 1\n" * 100)
    options = ["--minutes", "10", "--data", "notes"]
    none = scaling("init", "mine.toml", *options, "--glob", "*.rst", code=2)
    assert "notes: none of 2 files matches *.rst" in none.stderr
    made = scaling("init", "mine.toml", *options, "--glob", "*.md", code=0)
    assert "80.1 KiB, vocabulary of 256 bytes; left out: 1 other files" in made.stderr
    sources = open_store(place / "data" / "notes").manifest.sources
    assert [source.n_files for source in sources] == [1]
    other = scaling("init", "other.toml", *options, code=2)
    assert "holds another text" in other.stderr
    store = scaling("init", "other.toml", "--yes", "--data", "stdlib", "--glob", "*.py", code=2)
    assert "--data stdlib: --glob chooses among the files of a folder of text" in store.stderr


def test_minutes_give_a_sweep_of_as_many_flops(place):
    made = scaling("init", "short.toml", "--minutes", "10", "--yes", "--json", code=0)
    rate = flops_of_minutes(10, default_workers(), None)
    assert 0.5 * rate < json.loads(made.stdout)["flops"] < rate


@pytest.mark.slow
def test_a_store_of_another_text_is_never_used(place):
    def rejected(name):
        done = scaling("init", "second.toml", *given, name, code=2)
        assert not (place / "second.toml").exists()
        return done.stderr

    text, more = place / "notes" / "a.txt", place / "notes" / "b.txt"
    text.parent.mkdir()
    (place / "text.txt").rename(text)
    given = ("--budget", "1e12", "--data")
    scaling("init", "first.toml", *given, "notes", code=0)
    scaling("init", "same.toml", *given, f"{place}/notes", code=0)
    shutil.copytree(place / "notes", place / "other" / "notes")
    assert "it was prepared from notes, not from other/notes" in rejected("other/notes")
    more.write_text("x")
    grown = "notes had 1 files of 82,000 bytes and has 2 files of 82,001 bytes"
    assert grown in rejected("notes")
    more.unlink()
    text.write_text(text.read_text().upper())
    later = (place / "data" / "notes" / "manifest.json").stat().st_mtime + 2
    os.utime(text, (later, later))
    assert "a.txt has changed since" in rejected("notes")
    shutil.rmtree(place / "data" / "notes")
    scaling("init", "second.toml", *given, "notes", code=0)


def test_data_that_is_missing_or_empty_is_said_as_such(place):
    (place / "empty").mkdir()
    missing = scaling("init", "a.toml", "--budget", "1e12", "--data", "nowhere", code=2).stderr
    assert "--data nowhere: no such file or folder" in missing
    empty = scaling("init", "a.toml", "--budget", "1e12", "--data", "empty", code=2).stderr
    assert "empty: holds no text files" in empty


def test_a_budget_of_more_than_a_day_says_its_time(place):
    days = scaling("init", "a.toml", "--device", "h100", "--budget", "1e21", "--yes", code=0).stderr
    said = float(days.partition(" FLOPs take about ")[2].split()[0])
    flops = float(days.partition("warning: ")[2].rpartition(" FLOPs take")[0].split()[-1])
    assert said == pytest.approx(flops / flops_of_minutes(1440, 1, 9.89e14), rel=0.05)
    short = scaling("init", "b.toml", "--device", "h100", "--budget", "1e18", "--yes", code=0)
    assert "FLOPs take about" not in short.stderr


def test_repeated_text_is_a_warning_from_one_pass_on(place):
    (place / "more").mkdir()
    (place / "more" / "a.txt").write_text((place / "text.txt").read_text() * 20)
    made = scaling("init", "more.toml", "--budget", "1e13", "--data", "more", code=0)
    tokens = max(run["tokens"] for run in planned(place, "more.toml")["runs"])
    passes = tokens / (0.9 * 82_000 * 20)
    assert 3 < passes < 4
    (said,) = [line for line in made.stderr.splitlines() if "passes over" in line]
    assert float(said.split()[3]) == pytest.approx(passes, rel=0.01)
    assert "the laws count every token as new" in said
    (warning,) = planned(place, "more.toml")["warnings"]
    assert warning["code"] == "repeated_data"
    assert warning["data"]["passes"] == pytest.approx(passes, rel=0.01)


def planned(place, name):
    return json.loads(scaling("plan", name, "--no-probe", "--json", code=0).stdout)


def test_a_sweep_file_finds_its_prepared_text_from_anywhere(place, monkeypatch):
    (place / "sweeps").mkdir()
    (place / "notes").mkdir()
    (place / "text.txt").rename(place / "notes" / "a.txt")
    scaling("init", "sweeps/a.toml", "--budget", "1e12", "--data", "notes", code=0)
    here = planned(place, "sweeps/a.toml")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    there = planned(place, place / "sweeps" / "a.toml")
    assert [run["run_id"] for run in there["runs"]] == [run["run_id"] for run in here["runs"]]
    corpus = load_sweep(place / "sweeps" / "a.toml").base.task.corpus
    assert corpus == str(place / "data" / "notes")
    shutil.copytree(place / "data" / "notes", place / "stdlib")
    text = (place / "sweeps" / "a.toml").read_text()
    for name in ("stdlib", "a" * 4000):
        (place / "sweeps" / "b.toml").write_text(text.replace("data/notes", name))
        assert load_sweep(place / "sweeps" / "b.toml").base.task.corpus == name
