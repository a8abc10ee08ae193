"""Write the reference pages from the program: `python docs/reference.py` (a test checks them)."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from scaling import config
from scaling.config.sweep_file import schema

HERE = Path(__file__).resolve().parent
COMMANDS = [
    "init",
    "schema",
    "plan",
    "tune",
    "run",
    "train",
    "status",
    "results compact",
    "results check",
    "results export",
    "results export-model",
    "next",
    "fit",
    "predict",
    "reconcile",
    "report",
    "count",
    "coord-check",
    "data prepare",
    "data info",
    "doctor",
]
TABLES: list[tuple[str, type[BaseModel]]] = [
    ("the top of the file", config.Sweep),
    ('[design] with kind = "isoflop"', config.IsoflopDesign),
    ('[design] with kind = "grid"', config.GridDesign),
    ('[design] with kind = "ladder"', config.LadderDesign),
    ('[design] with kind = "list"', config.ListDesign),
    ("[[design.cells]] of a list", config.ListedCell),
    ('[design] with kind = "epochs"', config.EpochsDesign),
    ("[recipe]", config.Recipe),
    (
        "[recipe.lr_rule], [recipe.batch_rule], [recipe.b2_half_life], where measured",
        config.PowerRule,
    ),
    ("[recipe.transfer], [base.model.transfer]", config.MuP),
    ("[base]", config.Base),
    ('[base.task] with kind = "text"', config.TextTask),
    ('[base.task] with kind = "synthetic"', config.SyntheticTask),
    ("[base.model], overrides of what the recipe derives", config.ModelConfig),
    ("[base.optim], overrides of what the recipe derives", config.OptimConfig),
    ("[evals]", config.EvalConfig),
    ("[[axes]]", config.Axis),
    ("[[replicates]]", config.Replicates),
    ("[[tuning]]", config.Tuning),
    ("[[forecasts]]", config.Forecast),
]


CHANGES = """## Changes from the command line

`scaling plan`, `scaling run` and `scaling tune` take KEY=VALUE after the file:

<!-- planned: a minute -->
```sh
scaling run sweeps/norms.toml optim.lr=3e-3 'seeds=[0,1]' evals.points=8
scaling plan sweeps/demo.toml 'design.budgets=[3e10,1e11]' 'model.norm=[rmsnorm,layernorm]'
```

A key is named as the file names it; the tables of `[base]` may be named without it (`optim.lr`,
`model.norm`, `task.seq_len`, `batch_size`). A value is TOML, and a bare word is text. Quote
brackets: shells read them as patterns. A list for a field of `model`, `optim` or `task`, or for
`batch_size`, is a scientific axis; one value takes the place of an axis of that field. What a
[[tuning]] table or the cells of a list would set to something else is refused.

The changed sweep is another sweep. Its name says what was changed
(`norms-evals.points-8-optim.lr-0.003-seeds-0_1`, with a digest where that is too long), so it has a
folder of its own, and `--out` with the folder of the unchanged sweep is refused. The same command
takes it up again, and so does `scaling run FOLDER/sweep.toml`: the file that is kept there holds
the changed sweep.
"""


def sweep_files() -> str:
    """The page about sweep files: every table with its keys, types, ranges and defaults."""
    parts = [
        "# Sweep files\n",
        "A sweep is one question and the runs that answer it, in one TOML file. Counts may be",
        'written `70B`, `1.4e12` or `"2T"` (suffixes K, M, B, T, P, E). An unknown key is',
        "an error; all mistakes of a file are reported at once. `sweeps/demo.toml` is an example;",
        "`scaling init` writes a first one. With `#:schema ../docs/sweep.schema.json` at its top,",
        "editors complete its keys (`scaling schema` prints that file). This page is written by",
        "`python docs/reference.py`.\n",
        CHANGES,
    ]
    for title, model in TABLES:
        parts.append(f"## {title}\n\n{_prose(model)}\n\n| key | value | default |\n|---|---|---|")
        overrides = "overrides" in title
        parts += [_row(name, info, overrides) for name, info in model.model_fields.items()]
        parts.append("")
    return "\n".join(parts)


def _prose(model: type[BaseModel]) -> str:
    return " ".join(line.strip() for line in (model.__doc__ or "").strip().splitlines()).replace(
        "  ", " "
    )


def _row(name: str, info: Any, overrides: bool) -> str:
    required = info.is_required()
    known = "empty" if info.default_factory else _default(info.default)
    default = "from the recipe" if overrides and required else "required" if required else known
    return f"| `{name}` | {_type(info.rebuild_annotation())} | {default} |"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple):
        value = list(value)
    return (
        "absent"
        if value in (None, "")
        else f"`{str(value).lower() if isinstance(value, bool) else value}`"
    )


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        inner, *notes = arguments
        text = "`false`" if inner is bool else _type(inner)
        return " ".join([text, *(bound for note in notes for bound in _bounds(note))])
    if origin in (Union, UnionType):
        return " or ".join(
            dict.fromkeys(_type(part) for part in arguments if part is not type(None))
        )
    if str(origin) == "typing.Literal":
        return ", ".join(
            f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in arguments
        )
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    return {
        "int": "whole number",
        "float": "number",
        "str": "text",
        **dict.fromkeys(("Count", "Params", "Tokens"), "count"),
        "bool": "`true` or `false`",
    }.get(annotation.__name__, annotation.__name__)


def _bounds(note: Any) -> list[str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    metadata = getattr(note, "metadata", [note])
    return [
        f"{sign} {getattr(item, key):.10g}"
        for item in metadata
        for key, sign in signs.items()
        if isinstance(getattr(item, key, None), (int, float))
    ]


def command_line() -> str:
    """The page about the command line: the help of every command, at 100 columns."""
    parts = [
        "# Command line\n\nEvery command takes `--json`.",
        "This page is written by `python docs/reference.py`.\n",
        COMPLETION,
    ]
    environment = {
        **os.environ,
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "100",
        "TERMINAL_WIDTH": "100",
    }
    for name in COMMANDS:
        command = [sys.executable, "-m", "scaling", *name.split(), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        lines = "\n".join(
            line.rstrip()
            for line in done.stdout.replace("python -m scaling", "scaling").strip().splitlines()
        )
        parts.append(f"## scaling {name}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def laws() -> str:
    """The page about the laws: those that can be fitted, and the published ones."""
    from scaling.fit.laws.laws import LAWS
    from scaling.fit.laws.published import PUBLISHED
    from scaling.fit.special.table_laws import SPECIAL

    rows = [(name, law.formula, law.reference) for name, law in (*LAWS.items(), *SPECIAL.items())]
    rows.append(
        (
            "two-stage",
            "chinchilla, then accuracy by sigmoid",
            "Bhagia et al. 2024; needs a column Y (accuracy)",
        )
    )
    parts = [
        LAWS_HEAD,
        "| name | law | source |\n|---|---|---|",
        *(_cells(row) for row in rows),
        "\n## When to trust them\n",
    ]
    parts += [f"**{name}.** {' '.join(WHEN[name].split())}\n" for name, _, _ in rows]
    parts += [
        "\n## Published\n\nWhat `scaling predict published:NAME` knows.\n",
        "| name | law | parameters | source | counted |\n|---|---|---|---|---|",
    ]
    for name, entry in PUBLISHED.items():
        values = ", ".join(f"{key} {value:.6g}" for key, value in entry.values.items())
        parts.append(_cells((name, entry.law, values, entry.reference, entry.convention)))
    parts.append("\nWhat speaks against each:\n")
    parts += [f"- {name}: {note}." for name, entry in PUBLISHED.items() for note in entry.notes]
    return "\n".join(parts) + "\n"


PIPELINE = (
    "config", "recipe", "plan", "tasks", "train", "store", "execute", "tuning", "points", "fit",
    "predict", "render", "report", "trackers", "cli",
)  # fmt: skip


ADDING = (
    ("to add", "write", "and"),
    ("---", "---", "---"),
    (
        "a position encoding",
        "an `Encoding` in `ENCODINGS` of `train/model/positions.py`",
        "its word in `ModelConfig.pos` (`config/model.py`), from which tests of the model take it",
    ),
    (
        "a feed-forward",
        "its function in `train/model/transformer.py`",
        "its word in `ModelConfig.ffn`, its parameters in `accounting.py`, its memory in "
        "`plan/memory.py`, its width in `recipe/shapes.py`",
    ),
    ("a task", "a `Task` in `tasks/`", "its line in `tasks/__init__.py`, its fields in `config/`"),
    (
        "a law",
        "a `Law` in `fit/laws/laws.py`",
        "true parameters in `TRUTH` (`tests/fit/laws/test_laws.py`), when to trust it in `WHEN` "
        "(`docs/reference.py`)",
    ),
    ("a study", "a module with a `Study` in `studies/`", "its line in `studies/__init__.py`"),
    ("a figure or table", "a function in `report/parts/`", "its line in `report/sections.py`"),
    (
        "an option of a command",
        "a parameter in `cli/`, named as the field that it sets",
        "the same field of `FitOptions` or `RunOptions`",
    ),
    ("a command", "a function in `cli/`", "its line in `cli/__init__.py`"),
    (
        "a tracker",
        "a function in `trackers/` that logs a `RunLog`",
        "its line in `trackers/__init__.py`",
    ),
)


EXTENDING = """
**A law.** `_law(name, formula, reference)` is enough. A formula that is a sum of powers, with a
floor or under a root, is fitted with exact derivatives from a grid of exponents. Any other is
fitted as it is written, within the `bounds` that keep its parameters apart (`bnsl`, `sigmoid`,
`farseer`). N*(C) follows from a power of N and one of D in closed form, or for another formula of N
and D by minimisation. From the true parameters the tests check gradients, units and recovery.

**A study.** `induction.py` is a short one to begin from: one file that ends in
`STUDY = Study(name, title, analyze)`. `analyze` turns rows into `Findings`, the expected results
with what was measured, figures and perhaps a table, or None where rows show nothing of it. A test
holds every file to 200 lines. `studies/runs.py` reads rows by metric and configuration,
`studies/study.py` has intervals, power laws, claims and lines by run, and
`tests/studies/tables.py` makes the rows of a shipped sweep without training.
"""


def code_map() -> str:
    """The page about the code: modules by their first sentence, in pipeline order."""
    package = HERE.parent / "scaling"
    parts = [
        "# Code map\n\nThe folders follow the pipeline: sweep file, config, plan, (tasks, train), "
        "execute,"
        "\nstore, points, fit, predict, report. Each module is described by the first sentence of "
        "its"
        "\ndocstring. `python docs/reference.py` writes this page.\n",
        "## To add something\n\nBegin with a neighbour: each of these is one entry among others "
        "of its kind.\nThen write the pages anew (`python docs/reference.py`) and run the tests of "
        "the folder.\n",
        *map(_cells, ADDING),
        EXTENDING,
    ]
    folders = [path for path in package.rglob("*") if path.is_dir() and any(path.glob("*.py"))]
    folders = [path for path in folders if path.name != "studies"]  # it can be deleted
    folders.sort(key=lambda path: (PIPELINE.index(path.relative_to(package).parts[0]), path))
    for folder in [package, *folders]:
        modules = [path for path in sorted(folder.glob("*.py")) if path.stat().st_size]
        if modules:
            title = folder.relative_to(package.parent).as_posix()
            parts.append(f"## {title}/\n\n| module | |\n|---|---|")
            parts += [_cells((f"`{path.name}`", _first_sentence(path))) for path in modules] + [""]
    return "\n".join(parts)


def wrapped(page: str) -> str:
    """Prose at most 100 columns wide; tables, code blocks, headings and comments as they are."""
    lines, block = [], False
    for line in page.splitlines():
        block ^= line.startswith("```")
        if block or len(line) <= 100 or line[0] in "|<#`":
            lines.append(line)
            continue
        indent = "  " if line.startswith("- ") else ""
        lines += textwrap.wrap(
            line, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(lines) + "\n"


def _first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(re.split(r"(?<=\.)\s+(?=[A-Z`])", text.split("\n\n")[0], maxsplit=1)[0].split())


def _cells(row: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def sweep_schema() -> str:
    """The JSON Schema of sweep files, as `scaling schema` writes it."""
    return json.dumps(schema(), indent=1) + "\n"


COMPLETION = """## Shell completion

<!-- not run: it changes the files of your shell -->
```sh
scaling --install-completion          # bash, zsh, fish or PowerShell: whichever runs this
scaling --show-completion             # prints what it would install
_SCALING_COMPLETE=source_zsh scaling  # for a named shell: source_bash, source_zsh, source_fish
```

Open a new shell afterwards. Commands, options and files are completed.

## Colours and widths

Colours and live tables are for terminals: a pipe or a log gets plain lines of full width.
`NO_COLOR=1` leaves out colours on a terminal too, `COLUMNS` sets the width. On a narrow terminal
cells of a table break at spaces; where not even that fits, a row becomes a paragraph. No number is
cut.
"""

LAWS_HEAD = """# Laws

What `scaling fit --law NAME` fits. N are parameters, D training tokens, C training FLOPs, M = D/N,
U unique tokens, S steps; L is a loss in nats per token. [Conventions](conventions.md) say how they
are counted, [your own table](your-own-table.md) how columns are named. This page is written by
`python docs/reference.py`.
"""
WHEN = {  # what a reader asks before she uses a law: what it needs, and where it fails
    "chinchilla": """The default, and the law whose intervals are verified by simulation
        (coverage.md). It needs several N at several D, four budgets or more, and runs that are
        tuned and cooled down alike. Trust a, N* and L* over about one decade beyond the data,
        and never A and B alone. E is what the formula leaves over, not the entropy of text;
        where `not-identified` stands, it is the sum that is predicted. Not for repeated tokens,
        nor far above the optimal D/N.""",
    "chinchilla-tied": """For few runs that cannot tell alpha from beta. It says a = b =
        0.5 by construction where C = 6 N D (and nearly so where C is counted exactly): never
        ask it for a.""",
    "skaling": """The coupled law: N and D limit together, and k = 1 is chinchilla. It
        fits Farseer's runs and OpenEuroLLM's optima three to four times closer than chinchilla
        does, and extrapolates worse on others: it has one parameter more, and with few runs k
        is not identified. Look at its profile before you quote k.""",
    "skaling-tied": """The coupled law with alpha = beta: one parameter less, nearly as
        close, and identified where skaling is not. It says a = b = 0.5 by construction where C
        = 6 N D.""",
    "kaplan": """For N without embeddings and runs that stop when the held-out loss no
        longer falls. It has no floor, so it goes to zero, and predicts too low a loss far out. Its
        a and b are those of C = 6 N D, not the .73 of the paper, which comes from L(N, S).""",
    "kaplan-n": """For models trained to convergence on data that never run out: where D
        limits, the exponent is too small.""",
    "kaplan-d": """For models so large that N does not limit, stopped early: where N
        limits, the exponent is too small.""",
    "kaplan-c": """For the lower edge of L against C: only runs that are the best at
        their C. Others flatten it.""",
    "kaplan-ns": """For one pass over the data. S is the least number of steps, so steps
        at batch B (a column) are corrected by the critical batch that Kaplan measured on his
        data (B* = 2e8 tokens, alpha_B = 0.21). On other data that is a guess: a study has a
        sweep that measures it.""",
    "power": """For compute-optimal runs alone, one a budget. It knows nothing of N and
        D, and cannot say what another split would have cost.""",
    "data-constrained": """For repeated tokens. It needs runs at several epochs and fresh
        controls. R_D is known poorly even then ([11, 71] about 17.8 in careful-sweep.md), R_N
        worse. Muennighoff et al. 2023 call data worthless beyond about 40 epochs; it has been
        tried here to 16.""",
    "overtraining": """For ladders of tokens per parameter. It has one exponent for all
        M, so it is right only where the lines of log reducible loss against log C are parallel.
        Tried here from M = 40, 80 and 160 to 640: errors of 1.8 % (studies.md), all on the
        hopeful side.""",
    "bnsl": """For curves that bend, against C. Six parameters need many points on both
        sides of the break. A break that has not been seen yet cannot be foreseen: the law
        describes better than it predicts.""",
    "bnsl-n": """As bnsl, against N, with D that does not limit.""",
    "farseer": (
        "For dense grids of N and D: the exponent of D changes with N. Its nine parameters trade "
        "with each other, so a fit is mostly not-identified while its predictions are narrow."
    ),
    "bnsl-d": """As bnsl, against D, with N that does not limit.""",
    "optimum": """For optima read elsewhere, one per budget. It is a straight line in
        logs and knows nothing of how they were estimated: an optimum at the edge of its grid bends
        it.""",
    "sigmoid": """For accuracy against the loss on a task. Both plateaus must be seen, or
        lo and hi are guesses. Where the sigmoid is steep, an error of the loss grows manyfold.""",
    "coverage": """For counts of right answers, a row a problem. Trust it up to the
        number of samples that were drawn. For forecasts beyond, compare both routes: on the
        models of the studies the straight line was nearer than the beta-binomial, on rates
        drawn from a beta the other way round.""",
    "hyper": """For runs over learning rates and batches at several N and D: `--columns
"lr=lr,B=bsz [sequences of 2048],N=...,D=...,L=loss"`. Its notes are lines for a sweep's
[recipe].""",
    "lr-annealing": """For loss curves of one model under several schedules, one of which
        decays. It predicts other schedules of that model at that batch; N, D and the peak rate
        must lie within what was seen.""",
    "two-stage": """For accuracies of models of one family on one task. Errors of both
        stages add up: see sigmoid. Not for tasks on which all models are at chance.""",
}

PAGES = {
    "sweep.schema.json": sweep_schema,
    "sweep-files.md": lambda: wrapped(sweep_files()),
    "command-line.md": lambda: wrapped(command_line()),
    "laws.md": lambda: wrapped(laws()),
    "code-map.md": lambda: wrapped(code_map()),
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
