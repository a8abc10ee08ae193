"""One table, four outputs."""

import pytest

from scaling.render.rich_table import page
from scaling.render.table import Column, Table, records_to_csv

TABLE = Table(
    "runs",
    "Runs",
    (
        Column("run"),
        Column("memory", "bytes"),
        Column("time", "seconds"),
        Column("a", "rough", True),
    ),
    (("<b>&", 2.0**31, 90.0, (0.5, 0.4, 0.6)), ("x", None, None, None)),
)


def test_html_escapes_text_and_marks_numbers():
    html = TABLE.to_html()
    assert '<th scope="row" class="word">&lt;b&gt;&amp;</th>' in html
    assert '<td class="num">2 GiB</td><td class="num">1 min 30 s</td>' in html
    assert '<td class="num">0.500 [0.400, 0.600]</td>' in html


def test_html_for_foreign_pages_carries_its_own_alignment():
    html = TABLE.to_html(inline_style=True)
    assert 'style="text-align: right"' in html
    assert "class=" not in html


def test_records_become_columns_named_by_path():
    records = [{"run": "a", "loss": {"value": 1.5}, "seeds": [0, 1], "ok": True}, {"run": "=b"}]
    assert records_to_csv(records).splitlines() == [
        "run,loss.value,seeds,ok",
        'a,1.5,"[0, 1]",true',
        "'=b,,,",
    ]


@pytest.mark.parametrize("width", [24, 60])
def test_no_cell_is_cut_in_a_terminal(width):
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(page(TABLE))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "[0.400," in text
    assert "…" not in text
