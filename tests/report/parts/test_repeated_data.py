"""From a folder of repeated runs to the document, the picture, the tables and the terminal; and the
truth of a synthetic language.
"""

import copy
import math
from pathlib import Path

import numpy as np
import pytest

from scaling import accounting
from scaling.config.sweep_file import load_sweep
from scaling.fit.diagnostics.repeated_data import effective_epochs
from scaling.fit.pipeline import FitOptions
from scaling.plan import plan
from scaling.render.figure import Line, Markers
from scaling.report.page import write_report
from scaling.report.parts import fit_tables, repeated_data
from scaling.report.terminal import fit_parts
from scaling.store.rows import Measurement, Provenance, rows
from scaling.store.run_files import write_run
from tests.documents import as_fit, dump, fit
from tests.report.test_terminal import printed

pytestmark = pytest.mark.slow

FILE = Path(__file__).parents[3] / "sweeps" / "epochs.toml"
R_D = 9.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The shipped sweep as if trained: losses of D' fresh tokens, repeats decaying with R_D, a
    little noise of seeds.
    """
    sweep, target = load_sweep(FILE), tmp_path_factory.mktemp("epochs") / "epochs"
    noise = np.random.default_rng(0)
    for item in plan(sweep, sweep.base.task.model_copy(update={"digest": "d"}), 256).runs:
        run = item.run
        unique = min(run.task.unique_tokens or run.tokens, run.tokens)
        n, d = (
            accounting.n_params(run.model, 64),
            unique * float(effective_epochs(run.tokens / unique, R_D)),
        )
        loss = (0.7 + 25 / n**0.4 + 60 / d**0.35) * math.exp(noise.normal(0, 0.002))
        write_run(
            target,
            rows(
                "epochs",
                run,
                [Measurement(run.n_steps, "val", "loss", loss)],
                Provenance("cpu", None, "0"),
            ),
        )
    return target


@pytest.fixture(scope="module")
def document(folder):
    return fit([folder], FitOptions(bootstrap=50))


def test_chinchilla_on_repeats_warns_and_the_other_law_fits(folder, document):
    assert any(
        "48 runs repeat their data" in warning["message"]
        and "--law data-constrained" in warning["message"]
        for warning in document["warnings"]
    )
    constrained = fit([folder], FitOptions(law="data-constrained", bootstrap=50))
    assert not any(warning["code"] == "repeated_data" for warning in constrained["warnings"])
    assert constrained["params"]["R_D"]["value"] == pytest.approx(R_D, rel=0.25)
    for row in constrained["repeats"]:
        ratio = effective_epochs(row["epochs"], constrained["params"]["R_D"]["value"])
        assert row["predicted_ratio"] == pytest.approx(float(ratio))
    labels = [trace.label for trace in repeated_data.figure(as_fit(constrained)).traces]
    assert any(label.startswith("law data-constrained, R_D = ") for label in labels)
    assert "The law data-constrained has R_D = " in repeated_data.explanation(as_fit(constrained))
    assert constrained["repeats"][0]["ratio"] == document["repeats"][0]["ratio"]
    assert len(document["data"]["U"]) == len(document["data"]["loss"]) == 84


def test_document_lists_each_repeated_cell(document):
    assert len(document["repeats"]) == 3 * 2 * 4
    assert {row["runs"] for row in document["repeats"]} == {2}
    for row in document["repeats"]:
        assert row["ratio"] == pytest.approx(float(effective_epochs(row["epochs"], R_D)), rel=0.08)
        assert row["lo"] < row["ratio"] < row["hi"]


def test_the_picture_has_every_cell_the_identity_and_the_laws(document):
    figure = repeated_data.figure(as_fit(document))
    lines = [trace for trace in figure.traces if isinstance(trace, Line)]
    assert [line.label.split(",")[0] for line in lines] == [
        "as good as new",
        "Muennighoff 2023",
    ]
    assert list(lines[0].x) == list(lines[0].y)
    assert "R_D = 15.4" in lines[1].label
    drawn = [
        (x, y)
        for trace in figure.traces
        if isinstance(trace, Markers)
        for x, y in zip(trace.x, trace.y, strict=True)
    ]
    assert sorted(drawn) == sorted((row["epochs"], row["ratio"]) for row in document["repeats"])


def test_unknown_effective_tokens_are_reported(document):
    changed = copy.deepcopy(document)
    first, second, *_ = changed["repeats"]
    first |= dict.fromkeys(
        ("ratio", "lo", "hi", "effective_tokens", "extrapolated", "predicted_ratio")
    )
    second["extrapolated"] = True
    table = repeated_data.repeats(as_fit(changed))
    assert [row[-1] for row in table.rows[:3]] == ["no fresh runs", "beyond the fresh runs", ""]
    assert table.formatted()[0][6] == "–"
    figure = repeated_data.figure(as_fit(changed))
    assert "Rings lie beyond the fresh runs (1)" in figure.caption
    assert (
        sum(len(trace.x) for trace in figure.traces if isinstance(trace, Markers))
        == len(changed["repeats"]) - 1
    )


def test_a_fit_without_repeats_has_neither_picture_nor_table(document):
    bare = as_fit({**document, "repeats": None})
    assert repeated_data.figure(bare) is repeated_data.repeats(bare) is None
    assert fit_tables.known_entropy(bare) is None


@pytest.mark.slow
def test_the_report_has_a_section_and_the_terminal_a_table(document, tmp_path, monkeypatch):
    dump(document, tmp_path / "fit.json")
    page = write_report(tmp_path / "fit.json", tmp_path / "report")
    text = (page.parent / "report.md").read_text()
    assert "## Repeated data" in text
    assert {"repeats.svg", "repeats.png"} <= {
        path.name for path in (page.parent / "figures").iterdir()
    }
    assert (
        (page.parent / "tables" / "repeats.csv")
        .read_text()
        .splitlines()[0]
        .startswith("N,unique U,epochs,D,loss,fresh D',D'/U,D'/U lo")
    )
    shown = printed(fit_parts(as_fit(document)), monkeypatch)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "Muennighoff et al. 2023 have R_D = 15.4" in " ".join(shown.split())


TRUTH = {
    "entropy": 1.0,
    "floor": 1.01,
    "fitted_E": 0.97,
    "lo": 0.95,
    "hi": 0.99,
    "difference_percent": -3.0,
    "floor_difference_percent": -3.96,
    "covers": False,
}


def test_known_entropy_is_reported_with_the_distance_of_the_floor(monkeypatch, document):
    def table_of(status="ok", ci=0.95, **changes):
        changed = {"known_entropy": TRUTH | changes, "status": status, "ci": ci}
        return fit_tables.known_entropy(as_fit({**document, **changed}))

    table = table_of("not-identified")
    assert table.formatted() == [
        ["fitted E", "0.970 [0.950, 0.990]", "–"],
        ["lowest loss on the windows measured", "1.010", "-4 %"],
        ["entropy of the language", "1.000", "-3 %"],
    ]
    assert table.caption == (
        "The 95 % interval of E misses the lowest possible loss on these windows. The fit's "
        "status is not-identified."
    )
    alone = table_of(ci=0.9, floor=None, floor_difference_percent=None, covers=True)
    assert alone.caption == "The 90 % interval of E holds the true floor."
    assert len(alone.rows) == 2
    assert "No interval" in table_of(covers=None).caption
    shown = printed(fit_parts(as_fit(document | {"known_entropy": TRUTH})), monkeypatch)
    assert "entropy of the language" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
