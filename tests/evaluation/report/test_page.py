import math
import random
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from nmt.evaluation.report import ReportData, ReportSentence, SentenceBrowser, SplitStats, write_page
from nmt.evaluation.report.charts import ATTENTION, MAX_POINTS, TRAIN_LOSS, Axes, read_line, ticks, training_curves
from nmt.evaluation.report.html import environment
from nmt.evaluation.report.page import render

HOSTILE = "</script></style><img src=http://a.example/x onerror=alert(1)> & \"q\" 'r' \x00\x1b\ud800 <!-- "
SHOWN = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
VOID = {"meta", "br", "img", "link", "line", "circle", "path", "rect", "input"}


class Page(HTMLParser):
    """Elements with their attributes and the text inside them; fails when a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append({"tag": tag, "attributes": dict(attrs), "text": ""})
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, style=None):
        return [e for e in self.elements if e["tag"] == tag and style in (None, e["attributes"].get("class"))]

    def cells(self, label):
        """Return the texts of a table by its label, row by row."""
        start = next(i for i, e in enumerate(self.elements) if e["attributes"].get("aria-label") == label)
        rows = []
        for element in self.elements[start + 1 :]:
            if element["tag"] == "tr":
                rows.append([])
            elif element["tag"] in ("th", "td"):
                rows[-1].append(element["text"])
            elif element["tag"] not in ("table", "thead", "tbody", "br", "code"):
                break
        return rows


def test_the_page_holds_the_content_of_the_report(example, tmp_path):
    write_page(tmp_path / "new" / "report.html", example())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    page = Page((tmp_path / "new" / "report.html").read_text(encoding="utf-8"))
    cards = [e["text"] for e in page.all("div", "card")]
    assert len(cards) == 4
    assert cards[0].startswith("BLEU31.4295 % interval: 31.38 ± 1.50, 29.88 to 32.88nrefs:1|tok:13a")
    assert cards[1].startswith("chrF52.50nrefs:1|nc:6")
    assert "comet0.8125wmt22" in cards[2]
    assert "23.4 %" in cards[3]
    assert "precision 0.700, recall 0.800, F1 0.750" in cards[3]
    assert page.cells("Comparison with other systems")[1:] == [
        ["BLEU", "old", "31.42", "31.40 ± 1.50", "", "baseline", "bs:1000|sig"],
        ["BLEU", "new", "31.42", "31.40 ± 1.50", "+0.00", "0.0120", "bs:1000|sig"],
    ]
    assert [row[:2] for row in page.cells("Rates")[1:]] == [["length ratio", "1.010"], ["exact match", "5.0 %"]]
    assert page.cells("Data")[1] == ["train", "12,345", "12,340", "5 too long", "1 byte-order mark"]
    assert page.cells("Digests of the data")[1] == ["train", "a/train.en", "0123abcd"]
    assert {e["text"] for e in page.all("pre")} == {example().command, example().config}
    assert "torch" in [e["text"] for e in page.all("dt")]
    body = page.all("body")[0]["text"]
    assert all(text in body for text in ("Test, German to English", "gru-1", "one note"))
    sections = [e["attributes"]["id"] for e in page.all("section")]
    assert [e["attributes"]["href"] for e in page.all("a")] == [f"#{name}" for name in sections]


def test_the_page_is_in_the_order_of_reading(example):
    history = [*example().history, {"update": 5, "learned_scalars": {"gate": [0.5]}}]
    page = Page(render(replace(example(), history=history)))
    assert [e["attributes"]["id"] for e in page.all("section")] == [
        *("scores", "examples", "sentences", "parts", "alignment"),
        *("training", "learned", "diagnostics", "data", "provenance"),
    ]
    ids = [e["attributes"]["id"] for e in page.elements if "id" in e["attributes"]]
    assert len(ids) == len(set(ids))
    folded = [e["text"] for e in page.all("summary")]
    assert folded == ["1 more curve", "3 measures", "Digests of the data", "Versions", "Configuration"]
    assert not any("open" in e["attributes"] for e in page.all("details"))


def test_the_first_lines_say_what_the_page_is_of(example):
    report = replace(example(), facts=["en → de", "rnn, <b>dot</b> attention"])
    (line,) = [e["text"] for e in Page(render(report)).all("p")][:1]
    assert line == "run gru-1 · en → de · rnn, <b>dot</b> attention · 12,340 training pairs"


def test_the_reports_of_the_other_test_sets_are_linked(example):
    folders = {"test": "", "long": "long", "a #%": "a #%"}
    for test, expected in (
        ("test", {"long": "long/report.html", "a #%": "a%20%23%25/report.html"}),
        ("long", {"test": "../report.html", "a #%": "../a%20%23%25/report.html"}),
    ):
        page = Page(render(replace(example(), test=test, folders=folders)))
        links = {e["text"]: e["attributes"]["href"] for e in page.all("a") if "#" not in e["attributes"]["href"]}
        assert links == expected
        assert [e["text"] for e in page.all("b") if "aria-current" in e["attributes"]] == [test]
    assert "Test sets" not in render(replace(example(), folders={"test": ""}))


def browser_of(values: list[float | None], name: str = "chrF") -> SentenceBrowser:
    browser = SentenceBrowser()
    for value in values:
        browser.add(ReportSentence("a", "b", "c", {"other": 1.0, name: value}))
    return browser


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {}),
        ([5.0], {"Best": 0}),
        ([1.0, 2.0], {"Best": 1, "Worst": 0}),
        ([1.0, 3.0, 2.0], {"Best": 1, "Median": 2, "Worst": 0}),
        ([7.0] * 4, {"Best": 0, "Median": 2, "Worst": 3}),
        ([None, 4.0, None, 5.0], {"Best": 3, "Worst": 1}),
        ([None], {}),
    ],
)
def test_the_examples_are_the_best_the_median_and_the_worst_sentence(values, expected):
    assert browser_of(values).examples() == expected
    assert browser_of(values, "model score").examples() == {}


def test_the_examples_of_many_sentences_have_the_extreme_and_the_median_score():
    rng = random.Random(3)
    for num in range(3, 40):
        values = [float(rng.randrange(12)) for _ in range(num)]
        chosen = browser_of(values).examples()
        expected = {"Best": max(values), "Median": statistics.median_low(values), "Worst": min(values)}
        assert {name: values[index] for name, index in chosen.items()} == expected
        assert len(set(chosen.values())) == 3


def test_bars_are_as_long_as_their_numbers(example):
    page = Page(render(example()))
    widths = [float(e["attributes"]["width"]) for e in page.all("rect", "bar")]
    assert len(widths) == 2
    assert widths[1] / widths[0] == pytest.approx(12.25 / 31.5, abs=0.01)
    texts = [e["text"] for e in page.all("text")]
    assert {"0–10", "61 or more", "31.5 in 3 sentences", "12.2 in 1 sentence"} <= set(texts)


def test_maps_show_every_layer_and_head_and_mark_the_source(example):
    report = example()
    page = Page(render(report))
    for shift, name in enumerate(("read where a word is predicted", "read one step later")):
        rows = page.cells(name)
        assert rows[0] == ["layer \\ head", "mean", "1", "2", "3"]
        found = {(i, j): cell for i, row in enumerate(rows[1:]) for j, cell in enumerate(row[1:]) if cell}
        expected = {(r["layer"], r["head"]): f"{100 * r['aer']:.1f}" for r in report.head_scores if r["shift"] == shift}
        assert found == expected
    (chosen,) = [e for e in page.all("td") if "data-chosen" in e["attributes"]]
    assert {key: chosen["attributes"][f"data-{key}"] for key in ("layer", "head", "shift")} == {
        "layer": "2",
        "head": "1",
        "shift": "0",
    }
    grid = report.diagnostics["measures"]["entropy"]
    rows = page.cells("entropy")
    assert [row[1:] for row in rows[1:]] == [[f"{value:.2f}" for value in row] for row in grid]
    largest = max(max(row) for row in grid)
    shades = [
        float(e["attributes"].get("style", "--w:0").removeprefix("--w:"))
        for e in page.all("td")
        if "data-layer" in e["attributes"] and "data-shift" not in e["attributes"]
    ]
    np.testing.assert_allclose(shades[:6], np.ravel(grid) / largest, atol=0.001)


def test_every_map_has_a_scale(example):
    report = example()
    report.diagnostics["measures"]["entropy"] = [[0.5, -1.25, 0.25], [None, 1.0, 0.0]]
    scales = [e["text"] for e in Page(render(report)).all("p", "scale small soft")]
    errors = [[100 * row["aer"] for row in report.head_scores if row["shift"] == shift] for shift in (0, 1)]
    assert scales[:2] == [f"Shade: 0  100.0; here {min(group):.1f} to {max(group):.1f}" for group in errors]
    assert scales[2] == "Shade, by size without sign: 0  1.25; here −1.25 to 1.00"
    assert scales[-1] == "Shade: 0  100"
    report.diagnostics["measures"]["entropy"] = [[None] * 3] * 2
    assert len(Page(render(report)).all("p", "scale small soft")) == len(scales) - 1


def test_agreement_of_very_many_heads_is_shown_by_layer(example):
    page = render(example(1, 2, 33))
    assert "(layer) attend most" in page
    assert "(layer.head) attend most" in render(example(1, 2, 32))


def test_hostile_text_stays_text_everywhere(example):
    browser = SentenceBrowser(alignment_source_text=HOSTILE)
    pieces = ([HOSTILE], [HOSTILE], [0], [0], [(0, 0)])
    browser.add(ReportSentence(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: 1.0}, *pieces), np.ones((1, 1, 1, 1)))
    score = {"score": 1.0, "signature": HOSTILE}
    system = {"score": 1.0, "mean": None, "half_width": None, "p_value": None}
    hostile = ReportData(
        title=HOSTILE,
        name=HOSTILE,
        scores={
            HOSTILE: score,
            "external": {HOSTILE: score},
            "intervals": {HOSTILE: {"mean": 1.0, "half_width": 1.0, "signature": HOSTILE}},
            "significance": {HOSTILE: {"signature": HOSTILE, "systems": {HOSTILE: system}}},
            "rates": {HOSTILE: 1.0},
            "buckets": {HOSTILE: {HOSTILE: {"num_sentences": 1, "bleu": 1.0}}},
        },
        history=[{"update": 1, "loss": 1.0, "learned_scalars": {HOSTILE: [1.0]}}],
        data=[SplitStats(HOSTILE, 1, 1, {HOSTILE: 1}, {HOSTILE: 1})],
        fingerprints={HOSTILE: [[HOSTILE, HOSTILE]]},
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
        config=HOSTILE,
        notes=[HOSTILE],
        browser=browser,
    )
    text = render(hostile)
    page = Page(text)
    assert page.all("img") == []
    assert [e["attributes"].get("id") for e in page.all("script")] == ["texts", "weights", None]
    assert len(page.all("style")) == 1
    assert page.all("h1")[0]["text"] == SHOWN
    assert "<" not in page.all("script")[0]["text"]
    assert not any(name.startswith("on") for e in page.elements for name in e["attributes"])
    text.encode("utf-8")


def test_escaped_text_cannot_end_an_attribute():
    template = environment.from_string("<p title=\"{{ text }}\" lang='{{ text }}'></p>")
    page = Page(template.render(text=HOSTILE))
    assert [set(e["attributes"]) for e in page.elements] == [{"title", "lang"}]


def test_nothing_is_fetched(example):
    page = Page(render(example()))
    assert not [e for e in page.elements if {"src", "xlink:href", "srcset", "data"} & set(e["attributes"])]
    assert all(e["attributes"]["href"].startswith("#") for e in page.elements if "href" in e["attributes"])
    assert page.all("link") == []
    style = page.all("style")[0]["text"]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page.all("meta")[1]["attributes"]["content"]


def test_an_empty_report_has_no_empty_sections():
    page = Page(render(ReportData("Nothing", "none")))
    assert page.all("section") == []
    assert page.all("a") == []
    assert page.all("h1")[0]["text"] == "Nothing"


def test_the_curves_span_the_charts(example):
    page = Page(training_curves(example().history))
    drawings = [e for e in page.all("svg") if e["attributes"].get("class") != "key"]
    assert [e["attributes"]["aria-label"] for e in drawings] == [
        "Training loss and validation loss over updates",
        "Validation BLEU over updates",
        "Validation alignment error over updates",
        "Entropy of attention (nats) over updates",
    ]
    curves = [e for e in page.all("path") if "L" in e["attributes"]["d"]]
    assert len(curves) == 7
    for path in curves:
        points = [tuple(map(float, point.split())) for point in path["attributes"]["d"].removeprefix("M").split("L")]
        xs = [x for x, _ in points]
        assert xs == sorted(xs)
        assert all(48 <= x <= 428 and 14 <= y <= 200 for x, y in points)
    captions = " ".join(e["text"] for e in page.all("figcaption"))
    assert "validation BLEU (solid): highest 25 at update 1,000" in captions
    assert "validation loss (dashed): lowest 2.5 at update 200" in captions
    assert "lowest head (dashed): last 1 at update 1,000" in captions
    assert "highest head (dotted): last 1.2 at update 1,000" in captions


def unfolded(rows):
    """Return the headings of the curves that are shown, and of those that are folded."""
    page = Page(training_curves(rows))
    folded = next(iter(e["text"] for e in page.all("details")), "")
    names = [e["text"] for e in page.all("h3")]
    return [name for name in names if name not in folded], [name for name in names if name in folded]


def test_four_curves_are_shown_and_the_others_are_folded():
    grid = [[0.5, 0.25]]
    row = {"loss": 1.0, "learning_rate": 0.1, "valid_loss": 1.0, "valid_bleu": 1.0, "valid_chrf": 2.0, "valid_aer": 0.5}
    rows = [{"update": u, **row, "entropy": grid, "attention": dict.fromkeys(ATTENTION, grid)} for u in (1, 2)]
    loss, rate = "Training loss and validation loss over updates", "Learning rate over updates"
    bleu, chrf = "Validation BLEU over updates", "Validation chrF over updates"
    error, entropy = "Validation alignment error over updates", "Entropy of attention (nats) over updates"
    measures = [f"{heading} over updates" for heading in ATTENTION.values()]
    assert unfolded(rows) == ([loss, bleu, rate, error], [chrf, entropy, *measures])
    without = [{key: row[key] for key in row if key not in ("valid_bleu", "valid_aer")} for row in rows]
    assert unfolded(without) == ([loss, chrf, rate, entropy], measures)
    assert unfolded([{"update": 1, "valid_chrf": 1.0}]) == ([chrf], [])
    assert training_curves([{"update": 1}]) == ""


def test_measures_of_attention_over_training_have_a_chart_each():
    grid = [[0.5, 0.25, None], [0.75, 0.25, 0.5]]
    rows = [{"update": u, "entropy": grid, "attention": dict.fromkeys(ATTENTION, grid)} for u in (10, 20, 30)]
    page = Page(training_curves([{"update": 5, "loss": 1.0}, *rows]))
    drawings = [e["attributes"]["aria-label"] for e in page.all("svg") if e["attributes"].get("class") != "key"]
    assert drawings[1:] == [
        "Entropy of attention (nats) over updates",
        *(f"{heading} over updates" for heading in ATTENTION.values()),
    ]
    captions = [e["text"] for e in page.all("figcaption")[1:]]
    assert len(captions) == 1 + len(ATTENTION)
    for caption in captions:
        assert "mean of all heads (solid): last 0.45 at update 30" in caption
        assert "lowest head (dashed): last 0.25" in caption
        assert "highest head (dotted): last 0.75" in caption
    page = Page(
        training_curves([{"update": u, "attention": {"jump_length": [[2.0]], "eos_weight": [[None]]}} for u in (1, 2)])
    )
    (caption,) = page.all("figcaption")
    assert "the only head (solid): last 2 at update 2" in caption["text"]


def test_many_rows_are_averaged_and_the_caption_says_so():
    rows = [{"update": u, "loss": 2.0 + (-1) ** u} for u in range(2 * MAX_POINTS)]
    page = Page(training_curves(rows))
    path = page.all("path")[0]["attributes"]["d"]
    assert path.count("L") == MAX_POINTS - 1
    assert len({point.split()[1] for point in path.removeprefix("M").split("L")}) == 1
    assert "each point is the mean of 2 rows" in page.all("figcaption")[0]["text"]


def test_rows_without_a_finite_number_are_not_points():
    rows = [{"update": 2, "loss": 1}, {"update": 1, "loss": 3.0}, {"update": 3, "loss": math.nan}, {"loss": 1.0}, {}]
    assert read_line("loss", rows, ("loss",)).points == [(1.0, 3.0), (2.0, 1.0)]
    assert Page(training_curves([{"update": 1, "loss": 0.0}])).all("circle")


def test_a_perplexity_is_drawn_as_the_loss_without_smoothing():
    rows = [{"update": 1, "loss": 3.9, "perplexity": math.exp(3.5)}, {"update": 2, "loss": 2.5}]
    assert read_line("loss", rows, TRAIN_LOSS).points == [(1.0, pytest.approx(3.5)), (2.0, 2.5)]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.13, 0.14), (20, 8000), (-3, 4), (0, 1e6)])
def test_ticks_are_few_round_and_inside(low, high):
    values = ticks(low, high)
    assert 2 <= len(values) <= 7
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    step = (values[-1] - values[0]) / (len(values) - 1)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - choice) for choice in (1, 2, 5)) < 1e-6


def test_a_model_without_attention_has_sentences_and_no_maps():
    browser = SentenceBrowser()
    browser.add(ReportSentence("a", "b", "c", {"chrF": 1.0}))
    page = Page(render(ReportData("t", "n", browser=browser)))
    assert [e["attributes"]["id"] for e in page.all("section")] == ["examples", "sentences"]
    assert "All 1 sentences." in page.all("section")[1]["text"]
    assert page.all("script")[1]["text"] == ""


def test_learned_scalars_are_shown_as_they_were_last():
    rows = [
        {"update": 5, "valid_loss": 2.0, "learned_scalars": {"decoder.attention.hybrid.gate": [0.5, 0.5]}},
        {"update": 9, "valid_loss": 1.0, "learned_scalars": {"decoder.attention.hybrid.gate": [0.25, 0.875]}},
        {"update": 10, "loss": 1.0},
    ]
    cells = Page(render(ReportData("t", "n", history=rows))).cells("Learned by the attention")
    assert cells[1] == ["decoder.attention.hybrid.gate", "0.250  0.875"]
    assert "Learned scalars" not in render(ReportData("t", "n", history=rows[2:]))


def test_values_that_differ_by_rounding_only_are_drawn() -> None:
    rows = Axes([(1.0, 2.656), (2.0, 2.656 + 1e-15)]).rows()
    assert len({label for _, label in rows}) == len(rows) > 1
    columns = Axes([(1.1, 1.0), (1.1 + 2e-16, 2.0)], margin=0.08).columns()
    assert len({label for _, label in columns}) == len(columns) > 1
    assert len(Axes([(1.1, 1.0), (1.1 + 2e-16, 2.0)]).columns()) == 1
