"""Every command of the documentation is executed, page by page, in a copy of what the repository
holds.
"""

import re

import pytest

from tests.docs.blocks import (
    LANGUAGES,
    README,
    ROOT,
    Block,
    Command,
    blocks,
    commands,
    matches,
    pages,
)
from tests.docs.reader import Reader, _changed

pytestmark = pytest.mark.slow

PAGES = {page.name: blocks(page) for page in pages()}
RUN = [name for name, found in PAGES.items() if any(block.runs for block in found)]


def follow(name, here, monkeypatch, literally=False):
    monkeypatch.chdir(here)
    reader = Reader(here, literally)
    if name == "README.md":
        own_files(here)
    for block in PAGES[name]:
        reader.follow(block)
    for line in reader.listed:
        print(line)
    return reader


def own_files(here):
    """What a reader of the README has of her own: a table of runs, and texts."""
    rows = [
        f"{n:g},{d:g},{1.7 + 400 / n**0.34 + 400 / d**0.28}"
        for n in (1e6, 3e6, 1e7, 3e7, 1e8)
        for d in (2e7, 1e8, 5e8, 2e9)
    ]
    (here / "runs.csv").write_text("params,tokens,loss\n" + "\n".join(rows) + "\n")
    (here / "notes").mkdir()
    for place in range(20):
        (here / "notes" / f"{place}.txt").write_text(
            f"note {place}: to be or not to be, that is the question\n" * 200
        )
    (here / "more.jsonl").write_text('{"text": "and by opposing end them"}\n' * 200)


@pytest.mark.parametrize("name", RUN)
@pytest.mark.filterwarnings("default")  # a reader's warnings are hers to read
def test_blocks_of_a_page_run(name, tmp_path, monkeypatch):
    follow(name, tmp_path, monkeypatch)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", RUN)
def test_blocks_of_a_page_run_with_full_budgets(name, tmp_path, monkeypatch):
    follow(name, tmp_path, monkeypatch, literally=True)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_marked_with_its_kind(name):
    for block in PAGES[name]:
        assert block.language in LANGUAGES, (
            f"{block.place}: name a language of {sorted(LANGUAGES)}, not {block.language!r}"
        )
        assert not block.mark or block.said.strip(" :"), f"{block.place}: the mark gives no reason"


def test_readme_has_the_expected_blocks():
    texts = [block.text for block in PAGES["README.md"]]
    assert [first for first in README if not any(text.startswith(first) for text in texts)] == []


def test_blocks_are_parsed_with_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# P\n\n<!-- not run: a cluster -->\n```sh\nssh there\n```\n\n- x\n\n  ```python\n  a = "
        "1\n  ```\n```\nwhat?\n```\n"
    )
    first, second, third = blocks(page)
    assert (first.mark, first.said, first.runs, first.line) == ("not run", "a cluster", False, 4)
    assert (second.language, second.text, second.mark) == ("python", "a = 1", "")
    assert third.language not in LANGUAGES
    page.write_text("```sh\nscaling\n")
    with pytest.raises(ValueError, match="does not end"):
        blocks(page)


def test_a_command_is_what_a_shell_would_run():
    text = (
        "scaling plan a.toml 'x=[1,2]'  # why\nscaling fit a && scaling report a\ncat > b "
        "<<'END'\nscaling no && more\nEND\nscaling fit a | head\n"
    )
    found = commands(Block("p", 1, "sh", text))
    assert [command.is_plain for command in found] == [True, True, True, False, False]
    assert found[0].words == ["scaling", "plan", "a.toml", "x=[1,2]"]
    assert [
        Command(text).is_plain
        for text in ("scaling fit $A", "scaling fit *.csv", "scaling fit 'a*'", "scalings")
    ] == [
        False,
        False,
        True,
        False,
    ]
    assert _changed(["run", "a.toml", "b=1", "c=2"], ["c=3", "d=4"]) == [
        "run",
        "a.toml",
        "b=1",
        "c=3",
        "d=4",
    ]


def test_printed_output_equals_the_output_shown():
    assert matches("one  \ntwo\nthree\n", ("one", "...", "three"))
    assert matches("one\n", ("one", "..."))
    assert not matches("one\ntwo\n", ("one",))
    assert not matches("one\ntwo\n", ("one", "2"))


@pytest.mark.parametrize(
    ("language", "text", "mark"),
    [
        ("sh", "scaling plan sweeps/nowhere.toml --no-probe", ""),
        ("sh", "scaling run sweeps/demo.toml --no-such-option", "planned"),
        ("sh", "scaling run sweeps/demo.toml optim.no_such_key=1", "planned"),
        ("sh", "scaling report results/nowhere --no-such-option", "planned"),
        ("sh", "make no-such-target", ""),
        ("sh", "false | cat", ""),
        (
            "console",
            "$ scaling count --model d_model=64,n_layers=2,n_heads=1,d_head=64\nno such line",
            "",
        ),
        ("python", "assert 0, 'asserted'", ""),
    ],
)
def test_a_wrong_block_fails(language, text, mark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"page\.md:1|no-such-option|assert"):
        Reader(tmp_path).follow(Block("page.md", 1, language, text, mark, "why" if mark else ""))


def test_a_sweep_file_with_an_unknown_key_fails(tmp_path):
    reader = Reader(tmp_path)
    reader.follow(Block("page.md", 1, "toml", "[[tuning]]\nfield = 'optim.lr'"))
    with pytest.raises(Exception, match="fild"):
        reader.follow(Block("page.md", 1, "toml", "[[tuning]]\nfild = 'optim.lr'"))


def test_files_named_on_pages_exist():
    """Paths in code spans and blocks below the folders of the repository, but those that the text
    itself lets the reader write.
    """
    written = re.compile(r"results/|data/|sweeps/(x|large|first|short)\.toml|site/")
    lost = []
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        if page.name == "LOG.md":  # a diary speaks of what was
            continue
        for path in re.findall(
            r"\b(?:docs|sweeps|tests|scaling|benchmarks)/[\w./-]+\.(?:py|md|toml|json|png|js|"
            r"svg)\b",
            page.read_text(encoding="utf-8"),
        ):
            if not written.match(path) and not (ROOT / path).exists():
                lost.append(f"{page.name}: {path}")
    assert lost == []
