import math
from html.parser import HTMLParser

import numpy as np
import pytest

from nmt.report.chart import MAX_POINTS, TRAIN_LOSS, read_line, ticks
from nmt.report.page import Report, ReportSentence, SplitReport, escape, render, write_page

HOSTILE = "</script></style><img src=http://a.example/x onerror=alert(1)> & \"q\" 'r' \x00\x1b\ud800 <!-- "
VOID = {"meta", "br", "img", "link", "line", "circle", "path"}


class Page(HTMLParser):
    """Elements with their attributes and the text inside them; fails when a tag is not closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open = [], []
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


def sentence(text="das Haus"):
    matrix = np.array([[0.9, 0.0625, 0.0375], [0.0, 0.0, 1.0]])
    return ReportSentence(text, "the house", "a house", ["das", "Haus", "</s>"], ["a house", "</s>"], matrix)


def report():
    history = [{"update": u, "loss": 5 * math.exp(-u / 300)} for u in range(10, 1001, 10)]
    history += [{"update": u, "valid_loss": 2.5, "valid_bleu": u / 40} for u in range(200, 1001, 200)]
    return Report(
        title="Test, German to English",
        name="gru-1",
        scores={"bleu": (31.4159, "nrefs:1|tok:13a"), "chrf": (52.5, "nrefs:1|nc:6")},
        alignment={"aer": 0.2345, "f1": 0.7},
        history=history,
        data=[SplitReport("train", 12345, 12340, {"too long": 5, "never": 0}, {"byte-order mark": 1})],
        command="python -m nmt.train model=rnn",
        versions={"torch": "2.10.0"},
        config="seed: 1\nmodel:\n  cell: gru\n",
        notes=["one note"],
        sentences=[sentence(), ReportSentence("kein Gold", None, "no gold")],
    )


def test_the_page_holds_what_the_report_says(tmp_path):
    write_page(tmp_path / "new" / "report.html", report())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    page = Page((tmp_path / "new" / "report.html").read_text(encoding="utf-8"))
    body = page.all("body")[0]["text"]
    for text in ("Test, German to English", "gru-1", "31.42", "nrefs:1|tok:13a", "52.50", "0.234", "0.700", "one note"):
        assert text in body
    assert [e["text"] for e in page.all("td")[:4]] == ["12,345", "12,340", "5 too long", "1 byte-order mark"]
    assert {e["text"] for e in page.all("pre")} == {report().command, report().config}
    assert "torch" in [e["text"] for e in page.all("dt")]


def test_the_matrix_of_a_sentence_can_be_read_off_the_page():
    page = Page(render(report()))
    assert len(page.all("article")) == 2
    assert len(page.all("table", "heat")) == 1
    cells = [e for e in page.all("td") if "tabindex" in e["attributes"]]
    weights = np.array([float(e["attributes"]["title"]) for e in cells]).reshape(2, 3)
    np.testing.assert_allclose(weights, sentence().matrix, atol=0.0006)
    shades = [e["attributes"].get("style", "--w:0").removeprefix("--w:") for e in cells]
    np.testing.assert_allclose([float(shade) for shade in shades], sentence().matrix.ravel(), atol=0.001)
    assert [e["text"] for e in cells] == ["90", "", "", "", "", "100"]
    heads = [(e["attributes"]["scope"], e["text"]) for e in page.all("th") if e["attributes"].get("scope")][-5:]
    assert heads == [("col", "das"), ("col", "Haus"), ("col", "</s>"), ("row", "a house"), ("row", "</s>")]


def test_hostile_text_stays_text_everywhere():
    hostile = Report(
        title=HOSTILE,
        name=HOSTILE,
        scores={HOSTILE: (1.0, HOSTILE)},
        alignment={HOSTILE: 1.0},
        history=report().history,
        data=[SplitReport(HOSTILE, 1, 1, {HOSTILE: 1}, {HOSTILE: 1})],
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
        config=HOSTILE,
        notes=[HOSTILE],
        sentences=[ReportSentence(HOSTILE, HOSTILE, HOSTILE, [HOSTILE], [HOSTILE], np.ones((1, 1)))],
    )
    text = render(hostile)
    page = Page(text)
    assert page.all("img") == []
    assert len(page.all("script")) == len(page.all("style")) == 1
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    assert [e["text"] for e in page.all("dd", None)[:3]] == [shown] * 3
    assert page.all("h1")[0]["text"] == shown
    assert not any(name.startswith("on") for e in page.elements for name in e["attributes"])
    text.encode("utf-8")


def test_escaped_text_cannot_end_an_attribute():
    page = Page(f"<p title=\"{escape(HOSTILE)}\" lang='{escape(HOSTILE)}'></p>")
    assert [set(e["attributes"]) for e in page.elements] == [{"title", "lang"}]


def test_nothing_is_fetched():
    page = Page(render(report()))
    assert not [e for e in page.elements if {"src", "href", "xlink:href", "srcset", "data"} & set(e["attributes"])]
    assert page.all("link") == []
    style = page.all("style")[0]["text"]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page.all("meta")[1]["attributes"]["content"]


def test_texts_of_either_direction_set_their_own():
    page = Page(render(report()))
    assert all(e["attributes"].get("dir") == "auto" for e in page.all("dd") if e["text"] in ("das Haus", "a house"))
    assert all(e["attributes"]["dir"] == "auto" for e in page.all("span") if e["text"] in ("das", "Haus"))


def test_an_empty_report_has_no_empty_sections():
    page = Page(render(Report("Nothing", "none")))
    assert page.all("section") == []
    assert page.all("h1")[0]["text"] == "Nothing"


def test_the_curves_span_the_charts():
    page = Page(render(report()))
    assert len(page.all("svg")) == 2
    for path in page.all("path"):
        points = [tuple(map(float, point.split())) for point in path["attributes"]["d"].removeprefix("M").split("L")]
        xs = [x for x, _ in points]
        assert xs == sorted(xs)
        assert all(48 <= x <= 428 and 14 <= y <= 200 for x, y in points)
    captions = " ".join(e["text"] for e in page.all("figcaption"))
    assert "validation BLEU (solid): highest 25 at update 1,000" in captions
    assert "validation loss (dashed): lowest 2.5 at update 200" in captions


def test_many_rows_are_averaged_and_the_caption_says_so():
    rows = [{"update": u, "loss": 2.0 + (-1) ** u} for u in range(2 * MAX_POINTS)]
    page = Page(render(Report("t", "n", history=rows)))
    path = page.all("path")[0]["attributes"]["d"]
    assert path.count("L") == MAX_POINTS - 1
    assert len({point.split()[1] for point in path.removeprefix("M").split("L")}) == 1
    assert "each point is the mean of 2 rows" in page.all("figcaption")[0]["text"]


def test_rows_without_a_finite_number_are_not_points():
    rows = [{"update": 2, "loss": 1}, {"update": 1, "loss": 3.0}, {"update": 3, "loss": math.nan}, {"loss": 1.0}, {}]
    assert read_line("loss", rows, ("loss",)).points == [(1.0, 3.0), (2.0, 1.0)]
    assert Page(render(Report("t", "n", history=[{"update": 1, "loss": 0.0}]))).all("circle")


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


def test_more_sentences_than_wanted_are_counted():
    many = Report("t", "n", sentences=[sentence()] * 12)
    page = Page(render(many, max_sentences=3))
    assert len(page.all("article")) == 3
    assert "3 of 12 sentences" in page.all("main")[0]["text"]


def test_a_long_sentence_is_cut_with_a_note():
    labels = [str(i) for i in range(130)]
    long = ReportSentence("s", None, "h", labels, ["a"], np.full((1, 130), 1 / 130))
    text = Page(render(Report("t", "n", sentences=[long]))).all("main")[0]["text"]
    assert "only the first 120 of 130 source positions are shown" in text


def test_a_matrix_that_does_not_fit_is_refused_with_its_sentence():
    wrong = ReportSentence("s", None, "h", ["a"], ["b"], np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"sentence 2: attention of shape \(1, 2\) does not fit 1 target and 1 source"):
        render(Report("t", "n", sentences=[sentence(), wrong]))
    with pytest.raises(ValueError, match="sentence 1: attention holds values"):
        render(Report("t", "n", sentences=[ReportSentence("s", None, "h", ["a"], ["b"], np.array([[-1.0]]))]))


def test_learned_quantities_of_the_last_validation_are_shown() -> None:
    rows = [
        {"update": 5, "valid_loss": 2.0, "quantities": {"decoder.attention.hybrid.gate": [0.5, 0.5]}},
        {"update": 9, "valid_loss": 1.0, "quantities": {"decoder.attention.hybrid.gate": [0.25, 0.875]}},
        {"update": 9, "loss": 1.0},
    ]
    page = render(Report("t", "n", history=rows))
    assert "decoder.attention.hybrid.gate" in page
    assert "0.250  0.875" in page
    assert "0.500" not in page
    assert "Learned by the attention" not in render(Report("t", "n", history=rows[2:]))
