"""Tables for papers: what TeX would obey is shown as text, numbers stand to the right, missing ones
are dashes.
"""

import re

import pytest

from scaling.render.escape import for_latex
from scaling.render.latex import PARAGRAPH_ABOVE
from scaling.render.table import Column, Table

TABLE = Table(
    "exponents",
    "Exponents & more",
    (Column("approach"), Column("a", "number", True), Column("shift", "percent")),
    (("[parametric]", (0.514, 0.5, 0.53), -0.021), ("isoFLOP_2", None, None)),
    "At 95 % confidence.",
)


def test_latex_table_of_a_paper():
    assert TABLE.to_latex().splitlines() == [
        r"% Exponents \& more",
        r"% At 95 \% confidence.",
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{@{}l r r@{}}",
        r"\toprule",
        r"{}approach & $a$ & shift \\",
        r"\midrule",
        r"{}[parametric] & 0.514 [0.500, 0.530] & $-$2.1 \% \\",
        r"{}isoFLOP\_2 & \textendash{} & \textendash{} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        (
            "^^5cend & 5 % of $x_1$ #2 ~",
            r"\textasciicircum{}\textasciicircum{}5cend \& 5 \% of \$x\_1\$ \#2 \textasciitilde{}",
        ),
        ("one\n\\end{tabular}\ttwo", r"one \textbackslash{}end\{tabular\} two"),
        ("scaling fit --law x---y", "scaling fit -{}-law x-{}-{}-y"),
        ("α ≤ 3 × 10²", r"$\alpha$ $\leq$ 3 $\times$ 10$^2$"),
        ("模型 \u202e", "(U+6A21)(U+578B)"),
        ("", ""),
    ],
)
def test_latex_commands_in_text_are_escaped(text, shown):
    assert for_latex(text) == shown


def test_every_letter_becomes_ascii_with_balanced_braces():
    made = for_latex("".join(map(chr, range(32, 0x2300))))
    assert made.isascii()
    bare = re.sub(r"\\[{}]", "", made)
    depths = [
        bare[:place].count("{") - bare[:place].count("}") for place in range(0, len(bare) + 1, 7)
    ]
    assert min(depths) >= 0
    assert bare.count("{") == bare.count("}")
    assert bare.replace(r"\$", "").count("$") % 2 == 0


def test_long_text_becomes_a_paragraph_column():
    rows = (("why", "x " * PARAGRAPH_ABOVE),)
    table = Table("notes", "Notes", (Column("what"), Column("reason")), rows)
    assert r"{@{}l p{0.4\linewidth}@{}}" in table.to_latex()


def test_a_long_word_stays_on_one_line():
    table = Table("notes", "Notes", (Column("digest"),), (("f" * (PARAGRAPH_ABOVE + 1),),))
    assert r"{@{}l@{}}" in table.to_latex()


def test_parameters_alone_in_a_cell_are_mathematics():
    table = Table("x", "x", (Column("parameter"), Column("value")), (("alpha", "N_c"), ("a", "0")))
    body = table.to_latex().partition("\\midrule\n")[2].splitlines()
    assert body[:2] == ["{}$\\alpha$ & $N_c$ \\\\", "{}$a$ & 0 \\\\"]


WIDE = Table(
    "approaches",
    "Approaches",
    (Column("approach"), Column("a (N* ~ C^a)", "number"), Column("N* at top budget", "count")),
    (("parametric, the third one of them", 0.541, 67.7e3),),
)


def test_symbols_in_headings_are_mathematics():
    heading = WIDE.to_latex().splitlines()[4]
    assert heading == r"{}approach & a ($N^*$ $\sim$ $C^a$) & $N^*$ at top budget \\"
