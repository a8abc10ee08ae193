"""A report in a real browser: drawn, silent, by itself, reachable by keyboard and screen reader,
narrow, dark, on paper, and safe.
"""

import pytest

from scaling.report.inputs import load_inputs
from scaling.report.page import html
from scaling.report.sections import build_report
from tests.browser.reports import HOSTILE, HOSTILE_NAME, REFERENCE, WRITERS

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
DRAWN = """() => [...document.images].map((image) => ({
  name: image.alt,
  pixels: image.naturalWidth,
  width: image.getBoundingClientRect().width,
  height: image.getBoundingClientRect().height,
  share: image.getBoundingClientRect().width / image.parentElement.clientWidth,
  filter: getComputedStyle(image).filter,
}))"""
WIDER = """() => [...document.querySelectorAll('body *')]
  .filter((one) => !one.closest('.scroll, nav, .skip')
    && one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.tagName + ' ' + one.className + ' ' + one.textContent.slice(0, 40))"""
FOCUSED = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  const name = one.getAttribute('href') || one.getAttribute('aria-labelledby') || one.id
    || one.dataset.title || one.textContent;
  const inside = box.width > 0 && box.left >= 0 && box.right <= innerWidth
    && box.top >= 0 && box.bottom <= innerHeight;
  // a long table needs no more than its upper edge in sight
  const tall = box.height > innerHeight || one.matches('.scroll');
  return {what: [one.tagName, name].join(' '),
          seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1
            && (inside || tall)};
}"""
REACHABLE = "a[href], button, input, select, textarea, summary, [tabindex='0']"


def of(*names):
    """Run a test on the pages of these reports: what one template writes is tested where most of it
    is filled in.
    """
    return pytest.mark.parametrize("opened", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def opened(request, opening, reports):
    """A report in a page that its tests share, one after the other."""
    return opening(reports(request.param))


@pytest.fixture
def page(opened):
    """The page as the test before left it (each change draws all figures anew): whatever it says or
    asks for in a test fails that test.
    """
    yield opened.page
    assert (opened.said, opened.asked) == ([], [])


def violations(page, kind="tag", values=RULES):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(
        page, options={"runOnly": {"type": kind, "values": values}, "resultTypes": ["violations"]}
    )
    return [
        (one["id"], [node["html"][:120] for node in one["nodes"]])
        for one in found.response["violations"]
    ]


@of(*WRITERS)
def test_every_figure_is_drawn_and_fills_its_place(page):
    for figure in page.evaluate(DRAWN):
        assert figure["pixels"] > 300, figure["name"]
        assert 0.5 < figure["share"] <= 1.001, figure["name"]
        assert 0.5 < figure["height"] / figure["width"] < 1.5, figure["name"]


@of("reference", "lawless")
def test_every_control_is_reachable_by_keyboard_with_visible_focus(page):
    page.evaluate(
        "() => { document.body.tabIndex = -1; document.body.focus(); "
        "document.body.removeAttribute('tabindex'); scrollTo(0, 0); }"
    )
    expected = page.evaluate(f"() => document.querySelectorAll({REACHABLE!r}).length")
    reached = []
    for _ in range(expected):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    assert [one["what"] for one in reached[:2]] == ["A #summary", "A #summary"], (
        "the link that skips the sections, then the sections"
    )
    assert len({one["what"] for one in reached}) == expected - 1, (
        "each once; two links lead to the summary"
    )
    assert [one["what"] for one in reached if not one["seen"]] == []


@of("reference", "lawless")
def test_report_passes_accessibility_rules_in_light_and_dark(page):
    page.emulate_media(color_scheme="light")
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert all("invert" in figure["filter"] for figure in page.evaluate(DRAWN))
    assert violations(page, "rule", ["color-contrast"]) == [], "the rest is the same page"


def test_a_page_with_open_models_is_at_most_seven_thousand_pixels_high(opening, tmp_path):
    report = build_report(load_inputs([REFERENCE], tmp_path), None, "scaling report", models=True)
    path = tmp_path / "index.html"
    path.write_text(html(report), encoding="utf-8")
    page = opening(path).page
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = false))")
    assert page.evaluate("document.documentElement.scrollHeight") < 7000


@of("reference", "table", "laboratory")
def test_report_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(WIDER) == []


@of("reference")
def test_printed_report_has_light_figures_that_fit(page):
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 690, "height": 1000})  # A4 between margins of 1.4 cm
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    for figure in page.evaluate(DRAWN):
        assert figure["filter"] == "none", figure["name"]
        assert 0 < figure["width"] <= 690, figure["name"]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 690


@of("hostile")
def test_hostile_text_is_shown_and_not_executed(page):
    assert page.inner_text(".question") == HOSTILE
    assert page.inner_text("body").count(HOSTILE) >= 5, (
        "question, warning, reason, failure and path"
    )
    assert HOSTILE_NAME in page.inner_text("#table-laws + .scroll")
    assert page.evaluate("window.ran") is None
    assert page.query_selector("img:not([src^='data:image/svg']), a[href^='javascript']") is None


@of("table")
def test_a_file_named_with_markup_names_its_report(page):
    assert (page.inner_text("h1"), page.title()) == (
        HOSTILE_NAME,
        f"{HOSTILE_NAME}: scaling report",
    )
    assert page.evaluate("window.ran") is None


def test_content_security_policy_blocks_injected_scripts(opening, reports, tmp_path):
    planted = tmp_path / "planted.html"
    text = reports("lawless").read_text(encoding="utf-8")
    script = (
        '<script>window.ran=1</script><img src="https://example.org/x.png" '
        'onerror="window.ran=2"><script src="//example.org/x.js"></script>'
    )
    script += (
        '<iframe src="https://example.org"></iframe><form action="https://example.org"></form>'
    )
    planted.write_text(text.replace("<main>", "<main>" + script), encoding="utf-8")
    watched = opening(planted)
    watched.page.evaluate("document.forms[0].requestSubmit()")
    assert (
        watched.page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')")
        == "refused"
    )
    assert watched.page.evaluate("window.ran") is None
    assert watched.page.url == planted.as_uri()
    assert watched.asked == []
    refused = [said for said in watched.said if "Content Security Policy" in said]
    assert len(refused) == len(watched.said) >= 6
