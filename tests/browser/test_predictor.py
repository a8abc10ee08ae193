"""The predictor on the page says what `scaling predict` says: the same digits, intervals and
warnings, for every law with a frontier.
"""

import json
import math

import numpy as np
import pytest

from scaling.fit.fit_options import FitOptions
from scaling.fit.result import FitResult
from scaling.formatting import format_count, format_flops
from scaling.predict.law_source import load_law
from scaling.predict.predict import predict as answer_of
from scaling.render.table import Column, format_cell
from scaling.report.page import html
from scaling.report.parts.fit_tables import OPTIMUM
from scaling.report.predictor import predictor
from scaling.report.sections import Report
from scaling.report.summary import light
from tests.browser.reports import REFERENCE
from tests.documents import dump, fit, predict

ANSWERS = """(questions) => questions.map(([budget, demand]) => {
  const type = (id, text) => {
    const input = document.getElementById('predict-' + id);
    if (!input) return;
    input.value = text;
    input.dispatchEvent(new Event('input'));
  };
  type('demand', '');
  type('budget', budget);
  type('demand', demand);
  const read = (name) => Object.fromEntries(
    [...document.querySelectorAll(`[data-${name}]`)].map((cell) => [
      cell.dataset[name],
      [cell.firstChild.textContent, cell.querySelector('small')?.textContent ?? ''],
    ]));
  return {
    measures: read('measure'),
    served: document.getElementById('predict-served').hidden ? null : read('served'),
    warnings: [...document.querySelectorAll('#predict-warnings li')].map(
      (item) => item.textContent),
    notice: document.getElementById('predict-notice').hidden
      ? '' : document.getElementById('predict-notice').textContent,
    light: document.getElementById('predict-light').textContent,
    command: document.getElementById('predict-command').textContent,
  };
})"""


def runs(folder, law):
    """A table of runs on Hoffmann's or Kaplan's law with noise, four budgets of seven sizes."""
    noise = np.random.default_rng(3)
    cells = [
        (n, c / (6 * n))
        for c in (1e18, 1e19, 1e20, 1e21)
        for n in np.sqrt(c / 120) * np.geomspace(0.2, 5, 7)
    ]
    losses = {
        "chinchilla": lambda n, d: 1.69 + 406 / n**0.34 + 411 / d**0.28,
        "kaplan": lambda n, d: ((8.8e13 / n) ** (0.076 / 0.095) + 5.4e13 / d) ** 0.095,
    }
    lines = [
        f"{n:.8g},{d:.8g},{losses[law](n, d) * math.exp(noise.normal(0, 0.003)):.8g}"
        for n, d in cells
    ]
    (folder / f"{law}.csv").write_text("\n".join(["params,tokens,loss", *lines]))
    return folder / f"{law}.csv"


def cases(folder):
    """Documents by name: a law of two powers with a bent cost, one without a bootstrap, Kaplan's,
    and an approach without a law.
    """
    table = runs(folder, "chinchilla")
    yield "reference", json.loads((REFERENCE / "fits" / "chinchilla.json").read_text())
    yield "points", fit([table], FitOptions(law="chinchilla", bootstrap=0, holdout=None))
    yield "combination", fit([table], FitOptions(bootstrap=40))
    yield (
        "kaplan",
        fit([runs(folder, "kaplan")], FitOptions(law="kaplan", bootstrap=40, holdout=None)),
    )
    yield (
        "isoflop",
        fit([table], FitOptions(law="chinchilla", approach="isoflop", bootstrap=40, holdout=None)),
    )


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """{name: (fit document, its page)}."""
    found = {}
    for name, document in cases(tmp_path_factory.mktemp("tables")):
        folder = tmp_path_factory.mktemp(name)
        path = folder / f"{name}.json"
        dump(document, path)
        start = 10 * document["range"]["flops"][1]
        # no figures: opened in no time
        trust = light(FitResult.load(path), None)
        alone = Report(name, "", (), predictor=predictor(load_law(str(path)), path, start, trust))
        (folder / "index.html").write_text(html(alone), encoding="utf-8")
        found[name] = path, folder / "index.html"
    return found


def expected(path, budget, demand):
    """What the command line says of a question, in the words of the page."""
    answer = answer_of(str(path), flops=budget, inference_tokens=demand or None)
    said = answer.to_dict()
    level, why = light(FitResult.load(path), answer)
    measures = {}
    for name, _, kind in OPTIMUM:
        ends = (said[name][end] for end in ("value", "lo", "hi"))
        value, low, high = (format_cell(part, Column("", kind)) for part in ends)
        measures[name] = [value, "" if said[name]["lo"] is None else f"{low} to {high}"]
    held = said.get("inference")
    served = held and {
        "n_params": [format_count(held["n_params"]), ""],
        "tokens": [format_count(held["tokens"]), ""],
        "flops_total": [format_flops(held["flops_total"]), ""],
        "saved_fraction": [f"{100 * round(held['saved_fraction'], 12):.2g} %", ""],
    }
    # the page names no model, so that what the recipe refuses is not its to say
    warnings = [
        warning["message"]
        for warning in said["warnings"]
        if warning["message"] != why
        and (
            warning["code"] not in ("no_model", "approaches_disagree")
            or "outside the law's range" in warning["message"]
        )
    ]
    command = f"scaling predict {path} --flops {budget}" + (
        f" --inference-tokens {demand}" if demand else ""
    )
    return {
        "measures": measures,
        "light": f"{level.capitalize()}: {why}.",
        "served": served,
        "warnings": warnings,
        "notice": "",
        "command": command,
    }


@pytest.mark.parametrize("name", ["reference", "points", "kaplan", "isoflop", "combination"])
def test_predictor_page_agrees_with_the_command_line(fits, visit, name):
    document, page = fits[name]
    reach = json.loads(document.read_text())["range"]["flops"]
    noise = np.random.default_rng(1)
    near = [
        f"{reach[0] / 3:.3g}",
        f"{reach[0]:.12g}",
        f"{math.sqrt(reach[0] * reach[1]):.6g}",
        f"{1.1 * reach[1]:.3g}",
        f"{99 * reach[1]:.9g}",
    ]
    budgets = [
        *near,
        "1e21",
        "3e9",
        "10T",
        " 5.76e23 ",
        "1_000",
        "1.125e21",
        *(f"{10**power:.4g}" for power in noise.uniform(8, 26, 6)),
    ]
    questions = [(budget.strip(), "") for budget in budgets]
    if name != "isoflop":
        questions += [
            (budget, demand)
            for budget, demand in zip(near, ("1e3", "70B", "2T", "3.3e17", "9"), strict=True)
        ]
    answers = visit(page).evaluate(ANSWERS, questions)
    for (budget, demand), found in zip(questions, answers, strict=True):
        assert found == expected(document, budget, demand), (budget, demand)


def test_approach_without_a_law_has_no_serving_inputs(fits, visit):
    page = visit(fits["isoflop"][1])
    assert page.locator("#predict-demand").count() == 0
    assert "served" not in page.inner_text("#predictor")


def test_predictor_is_accessible_by_keyboard_and_screen_reader(fits, reports, visit):
    document, _ = fits["reference"]
    page = visit(reports("reference"), width=390)
    ahead = predict(str(document), flops=10 * json.loads(document.read_text())["range"]["flops"][1])
    start = page.input_value("#predict-budget")
    assert start == format_flops(ahead["flops"]["value"])
    page.wait_for_function("() => document.getElementById('predict-said').textContent.length > 40")
    said = predict(str(document), flops=start)
    n, d, ratio, loss = (
        format_cell(tuple(said[name][end] for end in ("value", "lo", "hi")), Column("", kind, True))
        for name, _, kind in OPTIMUM
    )
    sentence = f"For {start} FLOPs: {n} parameters on {d} tokens, {ratio} tokens per parameter"
    assert page.text_content("#predict-said") == f"{sentence}, loss {loss}."
    assert page.get_by_label("Training budget in FLOPs").get_attribute("id") == "predict-budget"
    page.fill("#predict-budget", "3e11")
    page.wait_for_function(
        "() => document.getElementById('predict-said').textContent.endsWith('that were trained.')"
    )
    page.fill("#predict-budget", start)
    page.focus("#predict-budget-slider")
    page.keyboard.press("ArrowRight")
    moved = page.input_value("#predict-budget")
    assert 1.0 < float(moved) / float(start) < 1.2
    assert page.get_attribute("#predict-budget-slider", "aria-valuetext") == moved
    assert page.inner_text("[data-measure=n_params]").split("\n")[0] == format_count(
        predict(str(document), flops=moved)["n_params"]["value"]
    )
    page.focus("#predict-demand-slider")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#predict-served")
    page.keyboard.press("Home")
    assert page.input_value("#predict-demand") == ""
    assert page.get_attribute("#predict-demand-slider", "aria-valuetext") == "none"
    assert page.is_hidden("#predict-served")


WRONG = [
    ("abc", "", '"abc" is not a number'),
    ("", "", "is not a number"),
    ("-3", "", "not a positive finite number"),
    ("0", "", "positive"),
    ("1e31", "", "above 1e30"),
    ("<b>1</b>", "", '"<b>1</b>" is not a number'),
    ("1e14", "many", '"many" is not a number'),
    ("1", "1e9", "are no sizes to start from"),
]


def test_invalid_number_shows_a_reason_and_clears_the_answer(fits, visit):
    page = visit(fits["reference"][1])
    for budget, demand, why in WRONG:
        (found,) = page.evaluate(ANSWERS, [(budget, demand)])
        assert why in found["notice"]
        assert page.is_hidden("#predict-answer")
        assert (
            page.get_attribute("#predict-demand" if demand else "#predict-budget", "aria-invalid")
            == "true"
        )
        assert page.text_content("#predict-said") == ""
        (again,) = page.evaluate(ANSWERS, [("1e14", "")])
        assert again["notice"] == ""
        assert page.is_visible("#predict-answer")


def test_without_javascript_the_page_says_so(fits, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(fits["reference"][1].as_uri())
    assert page.is_hidden("#predict")
    assert "Typing a budget here needs JavaScript" in page.inner_text("#predictor")
    assert "scaling predict" in page.inner_text("#predictor code")
    context.close()


def test_no_frontier_no_predictor(reports):
    assert (
        "predictor" not in reports("lawless").read_text(encoding="utf-8").rpartition("</script>")[2]
    )
