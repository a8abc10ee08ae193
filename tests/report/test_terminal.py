"""What the terminal shows, and what hostile text does to it: nothing."""

import copy
import io

import pytest

from scaling.predict.predict import predict
from scaling.render.escape import for_csv, for_markdown, sanitize
from scaling.render.rich_table import page
from scaling.render.table import Column, Table, number
from scaling.report.terminal import fit_parts, prediction_parts
from tests.documents import as_fit, dump


def printed(parts, monkeypatch, terminal=False):
    from rich.console import Console

    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=terminal).print(page(*parts))
    return out.getvalue()


def test_a_fit_fits_eighty_columns_without_colour(document, monkeypatch):
    text = printed(fit_parts(as_fit(document)), monkeypatch)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    assert "\x1b[3" not in printed(fit_parts(as_fit(document)), monkeypatch, terminal=True), (
        "NO_COLOR leaves bold and no colour"
    )
    for word in (
        "alpha",
        "0.3100",
        "0.279",
        "huber-log",
        "with_head",
        "30 fitted",
        "2 diverged",
        "not identified",
        "isoFLOP",
        "0.550 [0.495, 0.605]",
    ):
        assert word in text, word
    assert "Hold-out" in text
    assert "ok: fitted without the 1e13-FLOP budget" in text
    assert "warning: E = 1.1 lies close" in text


def test_unavailable_approach_shows_its_reason(document, monkeypatch):
    refused = copy.deepcopy(document)
    refused["approaches"]["envelope"] = {"unavailable": "two budgets only"}
    assert "envelope: two budgets only." in printed(fit_parts(as_fit(refused)), monkeypatch)


def test_a_prediction_fits_eighty_columns(document, tmp_path, monkeypatch):
    dump(document, tmp_path / "fit.json")
    text = printed(
        prediction_parts(
            predict(str(tmp_path / "fit.json"), flops=1e15, inference_tokens=1e9, with_model=True)
        ),
        monkeypatch,
    )
    assert all(len(line) <= 80 for line in text.splitlines())
    for word in (
        "A model that can be built",
        "tokens served",
        "largest run",
    ):
        assert word in text, word
    plainly = printed(prediction_parts(predict("published:kaplan2020", flops=1e20)), monkeypatch)
    assert "how far this" in plainly


def test_hostile_text_stays_text_in_a_terminal(document, monkeypatch):
    hostile = copy.deepcopy(document)
    message = "[bold]x[/bold] [/] \x1b[31mred\x1b]0;title\x07 \u202egnp.exe"
    hostile["warnings"] = [{"code": "other", "message": message}]
    hostile["source"]["paths"] = ["[link=https://x]\x1b[2Jfile[/link]"]
    text = printed(fit_parts(as_fit(hostile)), monkeypatch, terminal=True)
    assert "[bold]x[/bold] [/] [31mred" in text
    assert "[link=https://x][2Jfile[/link]" in text
    assert not {"\x1b[31m", "\x1b[2J", "\x1b]0", "\x07", "\u202e"} & {
        text[i : i + n] for n in (1, 4, 5) for i in range(len(text))
    }


@pytest.mark.parametrize("start", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_cell_is_a_formula(start):
    table = Table("x", "x", (Column("name"), Column("value", "number")), ((start, -1.5),))
    assert table.to_csv().splitlines()[1].lstrip('"').startswith("'")
    assert for_csv(-1.5) == -1.5
    assert for_csv(None) is None


def test_csv_keeps_all_digits_and_spreads_intervals():
    table = Table(
        "x",
        "x",
        (Column("a", "number", True), Column("n", "count")),
        (((0.123456789, 0.1, None), 123456.0),),
    )
    assert table.to_csv() == "a,a lo,a hi,n\n0.123456789,0.1,,123456.0\n"
    assert table.formatted() == [["0.123 [0.100, …]", "123k"]]


def test_markdown_shows_markup_as_text():
    assert (
        for_markdown("<b> | [x](javascript:1) `c` *a*\n# h")
        == r"&lt;b&gt; \| \[x\](javascript:1) \`c\` \*a\* \# h"
    )


def test_plain_drops_control_and_bidirectional_characters_and_lone_surrogates():
    assert sanitize("a\x00b\x1b[31m\u202ec\udcff\n") == "ab[31mc?\n"
    assert len(sanitize("x" * 10_000)) == 2000


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5139, "0.5139"),
        (2143.417, "2143"),
        (1.0182740178e-3, "0.001018"),
        (7.319e10, "7.319e10"),
        (0.0, "0"),
    ],
)
def test_numbers_keep_their_significant_digits(value, shown):
    assert number(value) == shown


def test_people_see_the_first_rows_of_a_long_table_and_the_csv_holds_all():
    table = Table("x", "x", (Column("n", "integer"),), tuple((n,) for n in range(9)), max_rows=3)
    assert table.formatted() == [["0"], ["1"], ["2"]]
    assert table.to_csv().split() == ["n", *map(str, range(9))]
