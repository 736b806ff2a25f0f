"""The page in a real browser. Nothing here runs where there is no Playwright or no Chromium."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nmt.alignment import to_word_matrix
from nmt.evaluation.report import ReportData, write_page
from nmt.evaluation.report.heatmap import LABEL_ROTATION, plot_heatmap
from nmt.evaluation.report.weight_encoding import MAX_QUANTIZATION_ERROR

Open = Callable[..., Any]


@pytest.fixture
def show(open_file, tmp_path) -> Open:
    """Return a function that opens a report."""

    def opened(report: ReportData, address: str = "", **context: Any) -> Any:
        write_page(tmp_path / "report.html", report)
        return open_file(tmp_path / "report.html", address, **context)

    return opened


def shades(page, rows="#matrix tbody tr") -> np.ndarray:
    """Return the matrix as it is drawn."""
    script = (
        "rows => rows.map(r => [...r.querySelectorAll('td')].map(c => Number(c.style.getPropertyValue('--w')) || 0))"
    )
    return np.array(page.eval_on_selector_all(rows, script))


def options(page):
    return page.locator("#list [role=option] .number:first-child").all_inner_texts()


def choose(page, **values):
    for name, value in values.items():
        page.select_option(f"#{name}", value)


@pytest.fixture
def recorded(example, monkeypatch):
    """Return a function that makes a report, and the attention that went into it."""
    weights = []

    def make(*arguments, **options):
        from nmt.evaluation.report.sentence_browser import SentenceBrowser

        add = SentenceBrowser.add

        def recording(browser, sentence, attention=None):
            weights.append(attention)
            add(browser, sentence, attention)

        monkeypatch.setattr(SentenceBrowser, "add", recording)
        return example(*arguments, **options), weights

    return make


def test_charts_are_drawn_with_their_text_inside(show, example):
    page = show(example())
    assert page.locator("svg:not(.key)").count() == 5
    script = """svgs => svgs.flatMap(svg => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text, path, rect, circle")].map(node => node.getBoundingClientRect())
            .map(r => r.width + r.height > 0 && r.left >= box.left - 1 && r.right <= box.right + 1
                && r.top >= box.top - 1 && r.bottom <= box.bottom + 1);
    })"""
    inside = page.eval_on_selector_all("svg:not(.key)", script)
    assert len(inside) > 70
    assert all(inside)
    texts = "svgs => svgs.map(svg => [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect().toJSON()))"
    for boxes in page.eval_on_selector_all("svg:not(.key)", texts):
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                apart_x, apart_y = min(a["right"], b["right"]) - max(a["left"], b["left"]), 0
                apart_y = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
                assert apart_x <= 0.5 or apart_y <= 2.5, (a, b)


@pytest.mark.parametrize("shift", [0, 1])
def test_the_matrix_is_the_mean_of_the_layers_and_heads_chosen(show, recorded, shift):
    report, weights = recorded(shift=shift)
    page = show(report)
    page.wait_for_selector("#matrix tbody td")
    assert page.is_checked("#shift") == bool(shift)
    choose(page, units="pieces")
    seen = []
    for layer, head in (("2", "1"), ("1", "3"), ("0", "2"), ("0", "0")):
        choose(page, layer=layer, head=head)
        layers = weights[0][int(layer) - 1 : int(layer)] if layer != "0" else weights[0]
        chosen = layers[:, int(head) - 1 : int(head)] if head != "0" else layers
        expected = chosen.mean((0, 1))[shift:]
        seen.append(shades(page))
        np.testing.assert_allclose(seen[-1], expected, atol=MAX_QUANTIZATION_ERROR + 0.001)
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(seen) for b in seen[:i])
    page.set_checked("#shift", not shift)
    assert len(shades(page)) == weights[0].shape[2] - (not shift)


@pytest.mark.parametrize("shift", [0, 1])
def test_words_are_projected_as_they_are_for_links(show, recorded, shift):
    report, weights = recorded(shift=shift)
    page = show(report)
    page.wait_for_selector("#matrix tbody td")
    choose(page, layer="2", head="3", units="words")
    for number in (0, 2, 3):
        row = report.browser._rows[number]
        source, target = row["s"].split(" "), row["h"].split(" ")
        page.click(f"#option-{number}")
        page.wait_for_selector(f"#matrix tbody th[title='{target[0]}']")
        expected = to_word_matrix(weights[number][1, 2], row["tw"], row["sw"], shift=shift)
        np.testing.assert_allclose(shades(page), expected, atol=3 * MAX_QUANTIZATION_ERROR)
        assert page.locator("#matrix tbody th").all_inner_texts() == target
        assert page.locator("#matrix thead th").all_text_contents() == [*source, "</s>"]
        assert page.locator("#matrix td.link").count() == 2


@pytest.mark.parametrize("shift", [0, 1])
def test_the_examples_show_the_alignment_source(show, recorded, shift):
    report, weights = recorded(4, shift=shift)
    page = show(report)
    page.wait_for_selector(".example .heat")
    cards = page.locator(".example").all()
    assert [card.locator("h3").inner_text() for card in cards] == ["Best", "Median", "Worst"]
    for card, number in zip(cards, report.browser.examples().values(), strict=True):
        row = report.browser._rows[number]
        for name, text in (("source", row["s"]), ("reference", row["r"]), ("hypothesis", row["h"])):
            assert card.locator(f".{name} p").inner_text() == text
        assert f"chrF {row['v'][0]:.2f}" in card.locator(".bar").inner_text()
        expected = to_word_matrix(weights[number][1, 0], row["tw"], row["sw"], shift=shift)
        script = "rows => rows.map(r => [...r.cells].slice(1).map(c => Number(c.style.getPropertyValue('--w')) || 0))"
        drawn = np.array(card.locator("tbody tr").evaluate_all(script))
        np.testing.assert_allclose(drawn, expected, atol=3 * MAX_QUANTIZATION_ERROR)
        card.locator("a").click()
        assert page.inner_text("#name") == f"Sentence {number + 1}"
        assert page.url.endswith(f"#sentence-{number + 1}")


def test_a_single_sentence_is_the_only_example(show, example):
    page = show(example(1))
    page.wait_for_selector(".example .heat")
    assert page.locator(".example h3").all_inner_texts() == ["The only sentence"]


def test_pictures_of_all_heads_choose_one(show, recorded):
    report, weights = recorded()
    page = show(report)
    page.wait_for_selector("#heads canvas")
    pixels = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]
        .filter((_, i) => i % 4 === 3).map(alpha => alpha / 255)"""
    shape = weights[0].shape
    for layer in range(shape[0]):
        for head in range(shape[1]):
            canvas = page.locator(f"#heads td[data-layer='{layer + 1}'][data-head='{head + 1}'] canvas")
            drawn = np.array(canvas.evaluate(pixels)).reshape(shape[2:])
            np.testing.assert_allclose(drawn, weights[0][layer, head], atol=MAX_QUANTIZATION_ERROR + 0.003)
    assert page.locator("#heads td.here").get_attribute("title") == "layer 2, head 1"
    page.click("#heads td[title='layer 1, head 3']")
    assert (page.input_value("#layer"), page.input_value("#head")) == ("1", "3")
    choose(page, units="pieces")
    np.testing.assert_allclose(shades(page), weights[0][0, 2], atol=MAX_QUANTIZATION_ERROR + 0.001)
    page.keyboard.press("Tab")
    page.focus("#heads td[title='layer 1, head 3']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert (page.input_value("#layer"), page.input_value("#head")) == ("2", "3")
    assert page.locator("#heads td[aria-current]").get_attribute("title") == "layer 2, head 3"


def test_one_head_needs_no_overview(show, example):
    page = show(example(2, 1, 1))
    page.wait_for_selector("#matrix tbody td")
    assert not page.is_visible("#heads")


def test_labels_are_turned_as_in_the_pictures(show, example):
    page = show(example())
    page.wait_for_selector("#matrix tbody td")
    style = page.eval_on_selector(
        "#matrix thead span",
        """span => {
        const { writingMode, textOrientation, rotate } = getComputedStyle(span);
        return [writingMode, textOrientation, parseFloat(rotate)]; }""",
    )
    assert style[:2] == ["vertical-rl", "sideways"]  # every letter by 90 degrees clockwise
    picture = plot_heatmap(np.ones((1, 1)), ["猫"], ["a"])
    assert picture.axes[0].get_xticklabels()[0].get_rotation() == LABEL_ROTATION == -90 - style[2]
    for number in (2, 3):  # Japanese, Arabic
        page.click(f"#option-{number}")
        page.locator("#name", has_text=f"Sentence {number + 1}").wait_for()
        page.wait_for_selector("#matrix tbody td")  # hidden until the weights are unpacked
        sizes = page.eval_on_selector_all("#matrix thead span", "all => all.map(e => [e.clientWidth, e.clientHeight])")
        assert all(width < 25 for width, _ in sizes)
        assert max(height for _, height in sizes) > 25


def test_a_cell_of_a_map_chooses_its_layer_and_head(show, example):
    page = show(example())
    page.wait_for_selector("#matrix tbody td")
    before = shades(page)
    page.click("table[aria-label='read one step later'] td[data-layer='1'][data-head='2']")
    assert [page.input_value(f"#{name}") for name in ("layer", "head")] == ["1", "2"]
    assert page.is_checked("#shift")
    assert shades(page).shape != before.shape or np.abs(shades(page) - before).max() > 0.05
    assert page.locator("table[aria-label=entropy] td.here").get_attribute("data-head") == "2"


def test_search_finds_in_all_three_texts_whatever_the_case(show, example):
    page = show(example(12))
    assert len(options(page)) == 12
    for text, found in (("CHURCH", [1, 7]), ("kleine", [1, 7]), ("große", [1, 7]), ("猫", [3, 9]), ("القصر", [4, 10])):
        page.fill("#search", text)
        assert options(page) == [str(number) for number in found]
        assert page.inner_text("#match-count").startswith("2 of 12 found")
    assert page.inner_text("#name") == "Sentence 4"
    page.fill("#search", "no such text")
    assert options(page) == []
    page.fill("#search", "<b>")
    assert options(page) == ["2", "8"]


def test_sentences_are_sorted_by_any_number_and_those_without_come_last(show, example):
    report = example(9)
    page = show(report)
    rows = report.browser._rows
    for key, at in (("0", 0), ("1", 1)):
        for direction, sign in (("up", 1), ("down", -1)):
            choose(page, sort=f"{key} {direction}")
            none = [i for i, row in enumerate(rows) if row["v"][at] is None]
            there = sorted(set(range(9)) - set(none), key=lambda i, at=at, sign=sign: (sign * rows[i]["v"][at], i))
            assert options(page) == [str(i + 1) for i in [*there, *none]]
    choose(page, sort="length up")
    assert options(page)[0] == "6"


def test_differences_are_marked_by_more_than_color(show, example):
    page = show(example())
    assert page.locator("#texts-shown mark.missing").all_inner_texts() == ["kleine", "steht "]
    assert page.locator("#texts-shown mark.extra").all_inner_texts() == ["große"]
    lines = {
        name: page.eval_on_selector(f"mark.{name}", "e => getComputedStyle(e).textDecorationStyle")
        for name in ("missing", "extra")
    }
    assert lines == {"missing": "dotted", "extra": "solid"}
    assert page.inner_text("#texts-shown .reference p") == "das kleine Haus steht neben der alten Kirche"
    page.click("#option-1")
    assert page.inner_text("#texts-shown .hypothesis p") == "eine Zahl, 1.234 & <b>Auszeichnung</b>"
    page.click("#option-5")
    assert page.inner_text("#texts-shown .hypothesis p") == "(empty)"


def test_a_word_is_traced_by_pointer_and_by_keyboard(show, example):
    page = show(example())
    page.wait_for_selector("#matrix tbody td")
    choose(page, units="pieces")
    rows = shades(page)
    page.hover("#target-line span:nth-child(3)")
    line = "spans => spans.map(s => Number(s.style.getPropertyValue('--w')) || 0)"
    np.testing.assert_allclose(page.eval_on_selector_all("#source-line span", line), rows[2], atol=1e-6)
    best = page.locator("#source-line span").nth(int(rows[2].argmax())).inner_text()
    assert best in page.inner_text("#weight")
    page.focus("#source-line span[tabindex='0']")
    page.keyboard.press("ArrowRight")
    np.testing.assert_allclose(page.eval_on_selector_all("#target-line span", line), rows[:, 1], atol=1e-6)
    assert page.locator("#matrix thead th.on").count() == 1
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.parentNode.id") == "target-line"
    page.keyboard.press("Escape")
    assert page.locator(".trace .on").count() == 0


def test_everything_is_reached_by_keyboard(show, example):
    page = show(example(), "#sentence-2")
    page.wait_for_selector("#matrix tbody td")
    assert page.evaluate("scrollY") > 0
    assert abs(page.evaluate("document.getElementById('sentence').getBoundingClientRect().top")) < 1
    reached, last = [], None
    for _ in range(80):
        page.keyboard.press("Tab")
        place = page.evaluate(
            "(e => e.id || e.closest('table')?.id || e.closest('.trace')?.id || e.tagName)(document.activeElement)"
        )
        if place == "BODY" and last is not None:
            break
        reached.append(place)
        last = place
    for name in (
        "search",
        "sort",
        "list",
        "next",
        "layer",
        "head",
        "units",
        "shift",
        "heads",
        "source-line",
        "target-line",
        "matrix",
    ):
        assert reached.count(name) == 1, (name, reached)
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#name") == "Sentence 3"
    assert page.get_attribute("#list", "aria-activedescendant") == "option-2"
    page.keyboard.press("End")
    assert page.inner_text("#name") == "Sentence 6"
    page.keyboard.press("Home")
    page.wait_for_selector("#matrix tbody td:visible")
    assert page.url.endswith("#sentence-1")
    page.focus("#matrix td[tabindex='0']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    weight = shades(page)[1, 1]
    assert float(page.inner_text("#weight").rpartition(" ")[2]) == pytest.approx(weight, abs=0.006)
    page.click("#diagnostics summary")
    page.focus("table[aria-label=entropy] td[tabindex='0']")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert (page.input_value("#layer"), page.input_value("#head")) == ("1", "2")


CONTRAST = """cells => cells.map(cell => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const over = colors => { colors.forEach(c => { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); });
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
    const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const under = getComputedStyle(cell.closest("article") ?? document.body).backgroundColor;
    const style = getComputedStyle(cell);
    const pair = [over([under, style.backgroundColor]), over([style.color])].map(light);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_stand_out_from_every_shade(show, example, scheme):
    page = show(example(), color_scheme=scheme)
    page.wait_for_selector("#matrix tbody td")
    fill = """tables => tables.forEach(table => [...table.querySelectorAll("tbody td")].forEach((td, i, all) =>
        shade(td, i / (all.length - 1))))"""
    page.eval_on_selector_all("#matrix, table[aria-label=entropy]", fill)
    for table in ("#matrix", "table[aria-label=entropy]"):
        assert min(page.eval_on_selector_all(f"{table} tbody td", CONTRAST)) > 3.5
    for part in ("h2", "p.soft", "mark.missing", "mark.extra", "#list [aria-selected=true]", "figcaption"):
        assert min(page.eval_on_selector_all(part, CONTRAST)) > 4.5, part


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_is_wider_than_the_window(show, example, width):
    page = show(example(layers=6, heads=8), viewport={"width": width, "height": 800})
    for number, title in ((0, "das"), (4, "Donaudampfschifffahrt0")):
        page.click(f"#option-{number}")
        page.wait_for_selector(f"#matrix tbody th[title={title}]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        labels = "all => all.map(e => [e.scrollWidth <= e.clientWidth + 1, e.title === e.textContent])"
        assert all(fits or titled for fits, titled in page.eval_on_selector_all("#matrix th", labels))


def test_a_page_printed_is_no_wider_than_the_paper(show, example):
    page = show(example(layers=6, heads=8), "#sentence-5", viewport={"width": 720, "height": 1000})
    page.wait_for_selector("#matrix tbody td")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert not page.is_visible("#list")


def test_paper_holds_what_is_read_first(show, example):
    page = show(example(layers=6, heads=8), viewport={"width": 720, "height": 1000})
    page.wait_for_selector(".example .heat")
    page.emulate_media(media="print")
    places = ["#scores .cards", "#examples .heat", "#parts svg", "#training svg"]
    places += ["#sentences #browser", "#alignment table", "#diagnostics summary", "#data table", "#provenance pre"]
    seen = {place[1:].split()[0]: page.locator(place).first.is_visible() for place in places}
    assert [name for name, is_there in seen.items() if is_there] == ["scores", "examples", "parts", "training"]
    after = "all => all.map(h => [h.textContent, getComputedStyle(h, '::after').content.includes('in the HTML page')])"
    marked = dict(page.eval_on_selector_all("h2", after))
    assert {name.lower(): not is_marked for name, is_marked in marked.items()} == seen


@pytest.mark.slow
@pytest.mark.parametrize("num_words", [8, 30, 70])
def test_four_pages_of_paper_are_enough(show, example, num_words):
    text = " ".join(f"word{i}" for i in range(num_words)), " ".join(f"Wörter{i}" for i in range(num_words))
    page = show(example(3, 6, 8, texts=[text]))
    page.wait_for_selector(".example .heat")
    margin = dict.fromkeys(("top", "bottom", "left", "right"), "0.4in")
    for paper in ("A4", "Letter"):
        pages = re.findall(rb"/Type\s*/Page\b", page.pdf(format=paper, margin=margin))
        assert 1 <= len(pages) <= 4, (paper, len(pages))


def test_right_to_left_text_runs_that_way(show, example):
    page = show(example(), "#sentence-4")
    page.wait_for_selector("#matrix tbody td")
    boxes = [span.bounding_box()["x"] for span in page.locator("#target-line span").all()]
    assert boxes == sorted(boxes, reverse=True)
    page.focus("#target-line span[tabindex='0']")
    page.keyboard.press("ArrowLeft")  # forward
    assert page.evaluate("[...document.activeElement.parentNode.children].indexOf(document.activeElement)") == 1
    page.select_option("#units", "pieces")
    left_ends = """end => [0, 3].map(i => {
        const range = new Range();
        range.setStart(end.firstChild, i);
        range.setEnd(end.firstChild, i + 1);
        return range.getBoundingClientRect().left;
    })"""
    start, end = page.locator("#target-line .end").evaluate(left_ends)
    assert start < end  # </s>, not <s/>


def test_the_sentence_of_the_address_is_in_view(show, example):
    page = show(example(), "#sentence-4", viewport={"width": 1280, "height": 600})
    page.wait_for_selector("#matrix tbody td")
    assert page.inner_text("#name") == "Sentence 4"
    assert 0 <= page.locator("#name").bounding_box()["y"] < 600


def test_sentences_with_one_matrix_are_described(show, example, monkeypatch):
    monkeypatch.setattr("nmt.evaluation.report.sentence_browser.SentenceBrowser.render.__defaults__", (6_000,))
    page = show(example(6, 4, 4))
    assert "with one (layer 2, head 1)" in page.inner_text("#sentences")
    assert page.is_enabled("#layer")
    page.keyboard.press("Tab")
    page.click("#option-5")
    page.wait_for_selector("#layer:disabled")
    assert page.is_disabled("#head")


def test_without_attention_there_is_no_matrix(show):
    from nmt.evaluation.report import ReportSentence, SentenceBrowser

    browser = SentenceBrowser()
    for _ in range(2):
        browser.add(ReportSentence("a b", "c d", "c e", {"chrF": 1.0}))
    page = show(ReportData("t", "n", browser=browser))
    assert page.inner_text("#name") == "Sentence 1"
    assert not page.is_visible("#attention")
    page.click("#next")
    assert page.inner_text("#name") == "Sentence 2"
    assert page.locator("#texts-shown mark.extra").all_inner_texts() == ["e"]


def test_hostile_sentences_do_nothing(show):
    from nmt.evaluation.report import ReportSentence, SentenceBrowser

    text = "</script><img src=http://a.example/x onerror=alert(1)><!-- <script>"
    browser = SentenceBrowser(alignment_source_text=text)
    sentence = ReportSentence(text, text, text, {text: 1.0}, [text, "</s>"], [text, "</s>"], [0, -1], [0, -1], [(0, 0)])
    browser.add(sentence, np.full((1, 1, 2, 2), 0.5))
    page = show(ReportData(text, text, notes=[text], browser=browser))
    page.wait_for_selector("#matrix tbody td")
    assert page.inner_text("#texts-shown .source p") == text
    assert page.locator("img").count() == 0
