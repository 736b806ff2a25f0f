"""The page in a real browser; skipped without Playwright or Chromium."""

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest

from tests.serve.test_tags import many, run  # noqa: F401

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

TEXT = "seven red dogs see a small house"
Open = Callable[..., "sync_api.Page"]


@pytest.fixture
def show(chromium, serve) -> Iterator[Open]:  # serve: so that its servers are stopped when the pages are closed
    """Return a function that opens a server's page; at the end check that nothing was logged or requested elsewhere."""
    pages, messages, requests, origins = [], [], [], []

    def open_page(client, address="", **context) -> "sync_api.Page":
        page = chromium.new_page(**context)
        page.set_default_timeout(60_000)
        pages.append(page)
        page.on("console", lambda message: "status of 4" in message.text or messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        origins.append(f"http://127.0.0.1:{client.port}/")
        page.goto(origins[-1] + address)
        page.wait_for_selector("article.model")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert messages == []
    assert [url for url in requests if not url.startswith(tuple(origins))] == []


def translate(page, text=TEXT, **numbers):
    for name, value in numbers.items():
        page.fill(f"#{name}", str(value))
    page.fill("#text", text)
    page.click("#translate")
    page.wait_for_selector("#status:has-text('Done')")


def model(page, name):
    """Return the column of a model."""
    return page.locator("article.model", has=page.locator("h2", has_text=name))


def shades(column) -> np.ndarray:
    """Return the matrix as it is drawn."""
    column.locator(".matrix tbody td").first.wait_for()
    script = (
        "rows => rows.map(r => [...r.querySelectorAll('td')].map(c => Number(c.style.getPropertyValue('--w')) || 0))"
    )
    return np.array(column.locator(".matrix tbody tr").evaluate_all(script))


def attention(client, name, text=TEXT, rank=0, beam=5, num=3):
    """Return the attention weights (L, H, T, S) of a hypothesis from the API."""
    request = {"model": name, "text": text, "beam_size": beam, "n_best": num}
    (sentence,) = client.post("/api/translate", request).json["sentences"]
    (part,) = sentence["details"]
    tokens = part["hypotheses"][rank]["tokens"]
    response = client.post("/api/attention", {"model": name, "source": part["source"], "tokens": tokens})
    return np.array(response.json["weights"])


def test_a_sentence_is_translated_and_its_heads_are_shown(show, client):
    page = show(client)
    column = model(page, "deep")
    translate(page)
    request = {"model": "deep", "text": TEXT, "beam_size": 5, "n_best": 3}
    (sentence,) = client.post("/api/translate", request).json["sentences"]
    assert column.locator(".translation").inner_text() == sentence["translation"]
    assert column.locator(".translation").get_attribute("aria-busy") == "false"
    hypotheses = sentence["details"][0]["hypotheses"]
    assert column.locator(".n-best tbody td:last-child").all_text_contents() == [one["text"] for one in hypotheses]
    weights = attention(client, "deep")
    column.locator(".units").select_option("pieces")
    assert column.locator(".layer").input_value() == "2"
    np.testing.assert_allclose(shades(column), weights[1, 0], atol=6e-4)
    for layer, head in ((1, 2), (2, 2), (1, 1)):
        column.locator(f".heads td[data-layer='{layer}'][data-head='{head}']").click()
        assert column.locator(".layer").input_value() == str(layer)
        assert column.locator(".head").input_value() == str(head)
        np.testing.assert_allclose(shades(column), weights[layer - 1, head - 1], atol=6e-4)
    assert np.abs(weights[0, 0] - weights[1, 0]).max() > 0.05  # otherwise the test would show nothing
    column.locator(".layer").select_option("0")
    column.locator(".head").select_option("0")
    np.testing.assert_allclose(shades(column), weights.mean((0, 1)), atol=6e-4)
    column.locator(".chosen").click()
    np.testing.assert_allclose(shades(column), weights[1, 0], atol=6e-4)
    column.locator(".n-best tbody tr").nth(1).click()
    column.locator(f".target-line span:nth-child({len(hypotheses[1]['subwords']) + 1})").wait_for()
    np.testing.assert_allclose(shades(column), attention(client, "deep", rank=1)[1, 0], atol=6e-4)
    column.locator(".shift").check()
    assert len(shades(column)) == len(hypotheses[1]["subwords"])


def test_words_links_and_lines(show, client):
    page = show(client)
    translate(page)
    column = model(page, "deep")
    rows = shades(column)
    (sentence,) = client.post("/api/translate", {"model": "deep", "text": TEXT}).json["sentences"]
    links = sentence["details"][0]["hypotheses"][0]["links"]
    places = "cells => cells.map(c => [c.cellIndex - 1, c.parentNode.sectionRowIndex])"
    assert column.locator(".matrix td.link").evaluate_all(places) == links
    assert column.locator(".source-line span").all_inner_texts() == [*TEXT.split(), "</s>"]
    assert column.locator(".links line.link").count() == len(links)
    strong = int((rows >= 0.085).sum())
    assert column.locator(".links line").count() >= strong > 0
    ends = """lines => lines.map(line => ['x1', 'y1', 'x2', 'y2'].map(n => Number(line.getAttribute(n))))"""
    boxes = "spans => spans.map(s => { const b = s.getBoundingClientRect(); return b.left + b.width / 2; })"
    left = column.locator("svg.links").evaluate("svg => svg.getBoundingClientRect().left")
    sources = np.array(column.locator(".source-line span").evaluate_all(boxes)) - left
    for x1, y1, _, y2 in column.locator(".links line").evaluate_all(ends):
        assert np.abs(sources - x1).min() < 1
        assert y2 > y1
    column.locator(".target-line span").first.hover()
    assert column.locator(".links.traced line.on").count() >= int((rows[0] >= 0.085).sum())
    line = "spans => spans.map(s => Number(s.style.getPropertyValue('--w')) || 0)"
    np.testing.assert_allclose(column.locator(".source-line span").evaluate_all(line), rows[0], atol=1e-6)
    page.mouse.move(0, 0)
    assert column.locator(".links.traced").count() == 0


def test_models_side_by_side(show, client):
    page = show(client)
    assert page.locator("article.model").count() == 3
    page.uncheck("#models input[value=plain]")
    assert page.locator("article.model h2").all_inner_texts() == ["deep", "none"]
    page.check("#models input[value=plain]")
    assert page.locator("article.model h2").all_inner_texts() == ["deep", "plain", "none"]
    translate(page)
    for name in ("deep", "plain", "none"):
        (sentence,) = client.post("/api/translate", {"model": name, "text": TEXT}).json["sentences"]
        assert model(page, name).locator(".translation").inner_text().strip() == sentence["translation"].strip()
    assert model(page, "none").locator(".no-attention").is_visible()
    assert not model(page, "none").locator(".attention").is_visible()
    np.testing.assert_allclose(shades(model(page, "plain")).shape[1], len(TEXT.split()) + 1)
    assert not model(page, "plain").locator(".heads").is_visible()


def test_the_translation_is_streamed(show, serve, slow):
    page = show(serve("deep", change=slow))
    page.fill("#text", TEXT)
    page.keyboard.press("Control+Enter")
    seen = set()
    text = page.locator(".translation")
    page.locator(".translation[aria-busy=true]").wait_for()
    while text.get_attribute("aria-busy") == "true":
        seen.add(text.inner_text())
    assert len(seen) > 2


def test_a_second_request_does_not_show_the_first_as_done(show, serve, slow):
    page = show(serve("deep", change=slow))
    page.fill("#text", "\n".join([TEXT] * 2))
    for _ in range(2):
        page.click("#translate")
        page.locator(".translation[aria-busy=true]:not(:empty)").wait_for()  # it has started
    both = "() => [document.querySelector('.translation').ariaBusy, document.querySelector('#status').textContent]"
    states = []
    while not states or states[-1][0] == "true":
        states.append(page.evaluate(both))
    assert len(states) > 3
    assert {status for busy, status in states if busy == "true"} == {"Translating …"}
    page.wait_for_selector("#status:has-text('Done')")


def test_several_lines_and_long_ones(show, client):
    page = show(client)
    page.uncheck("#models input[value=plain]")
    page.uncheck("#models input[value=none]")
    translate(page, "red dogs\n\n" + "the old man reads. " * 12)
    column = model(page, "deep")
    options = column.locator(".sentence option").all_inner_texts()
    assert len(options) > 2
    assert options[0] == "1: red dogs"
    column.locator(".source-line span:nth-child(3)").wait_for()  # attention is loaded after the translation
    assert column.locator(".source-line span").all_inner_texts() == ["red", "dogs", "</s>"]
    column.locator(".sentence").select_option("1")
    column.locator(".source-line span:nth-child(8)").wait_for()
    assert column.locator(".source-line span").first.inner_text() == "the"


def test_everything_works_with_the_keyboard(show, client):
    page = show(client)
    for name in ("plain", "none"):
        page.uncheck(f"#models input[value={name}]")
    page.mouse.move(0, 0)  # where no word will be under the pointer
    page.focus("#text")
    page.keyboard.type(TEXT)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#status:has-text('Done')")
    shades(model(page, "deep"))
    reached = []
    place = """(e => e.id || e.closest('td')?.closest('table').className || e.closest('.trace')?.className
        || [...e.classList].join(' ') || e.value || e.tagName)(document.activeElement)"""
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(place))
    for name in ("beam-size", "n-best", "translate", "layer", "head", "units", "shift", "map heads", "heat matrix"):
        assert name in reached, (name, reached)
    assert "trace source-line" in reached
    page.focus(".heads td[tabindex='0']")
    before = shades(model(page, "deep"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.input_value(".layer") == "1"
    assert page.input_value(".head") == "2"
    assert shades(model(page, "deep")).shape == before.shape
    page.focus(".matrix td[tabindex='0']")
    page.keyboard.press("ArrowDown")
    weight = shades(model(page, "deep"))[1, 0]
    assert float(page.locator("output.weight").inner_text().rpartition(" ")[2]) == pytest.approx(weight, abs=0.006)


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_nothing_is_wider_than_the_window(show, client, width, scheme):
    page = show(client, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for name in ("plain", "none"):
        page.uncheck(f"#models input[value={name}]")
    for text in ("verylongword" * 10, "seven red dogs " * 9):
        translate(page, text)
        shades(model(page, "deep"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_errors_are_shown_and_go_away(show, serve):
    page = show(serve("plain", max_sentence_chars=50))
    page.fill("#text", "red " * 30)
    page.click("#translate")
    page.locator(".error:visible").wait_for()
    assert "sentence 1: 120 characters are more than 50 (max_sentence_chars)" in page.inner_text(".error")
    assert page.inner_text("#status") == ""
    page.fill("#text", "red dogs")
    page.fill("#n-best", "9")
    page.click("#translate")
    page.locator(".error:visible", has_text="Translations 9: cannot be more than Beam size 5").wait_for()
    assert page.inner_text("#status") == ""
    page.fill("#beam-size", "999")
    page.press("#text", "Control+Enter")
    assert page.inner_text("#status").startswith("Beam size: ")
    page.fill("#beam-size", "5")
    page.fill("#n-best", "3")
    translate(page, "red dogs")
    assert not page.is_visible(".error")
    page.fill("#text", "  ")
    page.click("#translate")
    assert page.inner_text("#status") == "Write something first."


def test_hostile_text_is_shown_as_text(show, client):
    text = "</script><img src=http://a.example/x onerror=alert(1)><!-- \u202e שלום <b>"
    page = show(client)
    translate(page, text)
    column = model(page, "deep")
    shades(column)
    assert page.locator("img").count() == 0
    assert column.locator(".source-line span").all_inner_texts()[0] == "</script><img"


# --- lines between words ---


def ends_in_words(column) -> list[tuple[str, str]]:
    """Return the words at the ends of each drawn line; an end in no word, or a line behind another word, fails."""
    column.locator(".links line").first.wait_for(state="attached")
    return column.evaluate("""column => {
        const frame = column.querySelector("svg.links").getBoundingClientRect();
        const all = [...column.querySelectorAll(".pair .trace span")];
        const near = (box, x, y) => x > box.left - 1 && x < box.right + 1 && y > box.top - 1 && y < box.bottom + 1;
        return [...column.querySelectorAll(".links line")].map(line => {
            const [x1, y1, x2, y2] = ["x1", "y1", "x2", "y2"].map(name => Number(line.getAttribute(name)));
            const at = share => all.filter(span => near(span.getBoundingClientRect(),
                frame.left + x1 + share * (x2 - x1), frame.top + y1 + share * (y2 - y1)));
            const between = Array.from({ length: 97 }, (_, i) => at((i + 2) / 100)).flat();
            const [[from], [to]] = [at(0), at(1)];
            if (between.some(span => span !== from && span !== to)) throw new Error("a line passes behind a word");
            const ends = [[from, "source"], [to, "target"]];
            return ends.map(([word, side]) => word.closest(`.${side}-line`) && word.textContent);
        });
    }""")


def rows_of(column) -> int:
    """Return the number of rows that the words of the longer side take beside each other."""
    script = "spans => new Set(spans.map(s => s.offsetTop)).size"
    return max(column.locator(f".{side}-line span").evaluate_all(script) for side in ("source", "target"))


def test_lines_end_at_their_words_at_any_width(show, client):
    page = show(client, "?model=deep", viewport={"width": 1280, "height": 900})
    text = "the old man reads a long book in green garden and small dogs see seven red houses"
    translate(page, text)
    column = model(page, "deep")
    weights = shades(column)
    names = [column.locator(f".{side}-line span").all_inner_texts() for side in ("source", "target")]
    (sentence,) = client.post("/api/translate", {"model": "deep", "text": text}).json["sentences"]
    links = {tuple(link) for link in sentence["details"][0]["hypotheses"][0]["links"]}
    drawn = [(s, t) for t, row in enumerate(weights) for s, w in enumerate(row) if w >= 0.08 or (s, t) in links]
    expected = sorted([names[0][s], names[1][t]] for s, t in drawn)
    assert sorted(ends_in_words(column)) == expected
    assert rows_of(column) == 1
    for width in (390, 1280, 700):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_selector(f".pair{'.columns' if width == 390 else ':not(.columns)'}" if width != 700 else ".pair")
        page.wait_for_timeout(100)  # two frames: the size is reported in one, the lines are drawn in the next
        assert sorted(ends_in_words(column)) == expected
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_columns_of_words_are_walked_up_and_down(show, client):
    page = show(client, "?model=deep", viewport={"width": 390, "height": 900})
    translate(page, "the old man reads a long book in green garden and small dogs see seven red houses")
    page.locator(".pair.columns .links line").first.wait_for(state="attached")
    focused = (
        "(e => [e.closest('.source-line') !== null, [...e.parentNode.children].indexOf(e)])(document.activeElement)"
    )
    page.focus(".source-line span:nth-child(3)")
    places = []
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
        places.append(page.evaluate(focused))
    assert places == [[True, 3], [True, 4], [True, 3], [False, 3], [False, 4], [True, 4]]


# --- the address ---


def test_the_address_holds_what_is_translated(show, client):
    page = show(client)
    assert urlsplit(page.url).query == ""
    page.uncheck("#models input[value=plain]")
    text = "red dogs & <b>houses</b> + 100 %\nשלום"
    translate(page, text)
    assert parse_qs(urlsplit(page.url).query) == {"text": [text], "model": ["deep", "none"]}
    again = show(client, "?" + urlsplit(page.url).query)
    again.wait_for_selector("#status:has-text('Done')")
    assert again.input_value("#text") == text
    assert again.locator("article.model h2").all_inner_texts() == ["deep", "none"]
    for name in ("deep", "none"):
        assert (
            model(again, name).locator(".translation").inner_text()
            == model(page, name).locator(".translation").inner_text()
        )
    page.fill("#text", "ä" * 2001)
    page.click("#translate")
    page.locator(".error:visible", has_text="(max_sentence_chars)").first.wait_for()
    assert urlsplit(page.url).query == ""  # too long for an address
    assert page.evaluate("history.length") == again.evaluate("history.length")  # replaced, not added


def test_one_model_is_not_in_the_address(show, serve):
    page = show(serve("plain"), "?text=red%20dogs")
    page.wait_for_selector("#status:has-text('Done')")
    assert urlsplit(page.url).query == "text=red+dogs"
    assert not page.is_visible("#unknown")


def test_a_hostile_address_is_shown_as_text(show, client):
    hostile = "<img src=x onerror=alert(1)></script><svg onload=alert(2)>"
    page = show(client, f"?model={quote(hostile)}&model=plain&text={quote(hostile)}")
    page.on("dialog", lambda dialog: pytest.fail("a script of the address ran"))
    page.wait_for_selector("#status:has-text('Done')")
    assert page.input_value("#text") == hostile
    assert page.inner_text("#unknown") == (
        f"The address names a model that is not served ({hostile}); those that are: deep, plain, none"
    )
    assert page.locator("article.model h2").all_inner_texts() == ["plain"]
    assert page.locator("img, main > svg, form svg").count() == 0
    only_unknown = show(client, "?model=none_such")
    assert only_unknown.inner_text("#unknown").startswith("The address names a model that is not served (none_such)")
    assert only_unknown.locator("article.model").count() == 3
    assert only_unknown.input_value("#text") == ""


# --- languages ---


def test_examples_and_direction_follow_the_chosen_model(show, serve):
    def change(served):
        served[1].config.data.source_lang, served[1].config.data.target_lang = "fr", "en"
        served[0].examples, served[1].examples = [], ["le chat <b>dort</b>"]

    page = show(serve("deep", "plain", "none", change=change))
    assert page.inner_text("#about").startswith("en → de, fr → en · ")
    assert page.locator("#examples button").all_inner_texts() == ["the old man", "seven red houses"]
    assert model(page, "plain").locator(".about").inner_text().startswith("fr → en, rnn")
    for name in ("deep", "none"):
        page.uncheck(f"#models input[value={name}]")
    assert page.inner_text("#about").startswith("fr → en · ")
    assert page.get_attribute("#text", "lang") == "fr"
    assert page.locator("#examples button").all_inner_texts() == ["le chat <b>dort</b>"]
    page.click("#examples button")
    page.wait_for_selector("#status:has-text('Done')")
    assert page.input_value("#text") == "le chat <b>dort</b>"
    page.check("#models input[value=deep]")
    assert not page.is_visible(
        "#examples"
    )  # of the first model, which has none; the second translates from another language


def test_target_languages_and_tags_are_menus(show, many):  # noqa: F811
    page = show(many)
    assert page.locator("#target-lang option").all_inner_texts() == ["de", "fr", "en"]
    assert page.locator("#tag option").all_inner_texts() == ["no tag", "web"]
    assert page.inner_text("#about").startswith("en → de · ")
    page.uncheck("#models input[value=plain]")
    translate(page, TEXT)
    for language, tag in (("fr", None), ("fr", "web"), ("en", "web")):
        page.select_option("#target-lang", language)  # translates again
        page.select_option("#tag", tag or "")
        page.wait_for_selector("#status:has-text('Done')")
        asked = {"target_lang": language, "tag": tag, "beam_size": int(page.input_value("#beam-size"))}
        (sentence,) = many.post("/api/translate", {"text": TEXT, **asked}).json["sentences"]
        column = model(page, "many")
        assert column.locator(".translation").inner_text() == sentence["translation"]
        assert column.locator(".translation").get_attribute("lang") == language
        column.locator(".units").select_option("pieces")
        names = [f"<2{language}>", *(["<web>"] if tag else [])]
        assert column.locator(".target-line span").all_inner_texts()[: len(names)] == names
        column.locator(".units").select_option("words")
    assert "target_lang=en&tag=web" in page.url
    assert page.get_attribute("#text", "lang") == "de"  # a language from which it translates into English
    again = show(many, page.url.partition("/?")[2].join(["?", ""]))
    assert (again.input_value("#target-lang"), again.input_value("#tag")) == ("en", "web")
    page.check("#models input[value=plain]")
    translate_failed = model(page, "plain").locator(".error")
    page.click("#translate")
    translate_failed.wait_for()
    assert translate_failed.inner_text().endswith("target_lang=en: the model translates into de")
    page.uncheck("#models input[value=many]")
    assert not page.is_visible("#target-lang")
    assert not page.is_visible("#tag")


# --- interventions ---


def wait_for_comparison(page, column, text):
    """Wait until the numbers under both translations hold a text, and the comparison is complete."""
    column.locator(".changes button", has_text=text).first.wait_for()
    page.wait_for_function(
        "() => document.querySelector('.after').ariaBusy === 'false' && !document.querySelector('.compare').hidden"
    )


def asked(client, interventions, text=TEXT):
    """Return the translation and its log-probability under interventions, from the API."""
    request = {"model": "deep", "text": text, "beam_size": 5, "n_best": 1, "interventions": interventions}
    (sentence,) = client.post("/api/translate", request).json["sentences"]
    return sentence["translation"], f"{sentence['log_prob']:.3f}".replace("-", "−")


def test_a_head_is_silenced_and_made_uniform(show, client):
    page = show(client, "?model=deep")
    translate(page)
    column = model(page, "deep")
    shades(column)
    column.locator(".units").select_option("pieces")
    before = shades(column)
    text, log_prob = asked(client, [])
    assert column.locator(".silence").inner_text() == "Silence this head"
    assert not column.locator(".compare").is_visible()
    column.locator(".silence").click()
    wait_for_comparison(page, column, "layer 2, head 1: silenced")
    assert (shades(column) == 0).all()
    changed, now = asked(client, [{"layer": 2, "head": 1, "weights": "zero"}])
    assert column.locator(".before").inner_text() == text
    assert column.locator(".after").inner_text() == changed
    assert column.locator(".before-p").inner_text().startswith(f"log p {log_prob}; with the change −")
    assert column.locator(".after-p").inner_text().startswith(f"log p {now}")
    assert now != log_prob
    assert column.locator(".silence").get_attribute("aria-pressed") == "true"
    places = "cells => cells.map(c => [c.dataset.layer, c.dataset.head].join())"
    assert column.locator(".heads td.changed").evaluate_all(places) == ["2,1"]
    column.locator(".layer").select_option("0")
    column.locator(".head").select_option("0")
    assert column.locator(".level").inner_text() == "Make them uniform"
    column.locator(".level").click()
    wait_for_comparison(page, column, "all layers, all heads: uniform")
    np.testing.assert_allclose(shades(column), 1 / before.shape[1], atol=6e-4)
    both = [{"layer": 2, "head": 1, "weights": "zero"}, {"layer": 0, "head": 0, "weights": "uniform"}]
    changed, now = asked(client, both)
    assert column.locator(".after").inner_text() == changed
    words = set(text.split()) ^ set(changed.split())
    marks = column.locator(".compare mark").all_inner_texts()
    assert words
    assert all(any(part in word for mark in marks for part in mark.split()) for word in words)
    assert column.locator(".heads td.changed").count() == 4
    for num in (1, 0):
        column.locator(".changes button").last.click()
        page.wait_for_function(f"() => document.querySelectorAll('.changes button').length === {num}")
    page.wait_for_function("() => document.querySelector('.compare').hidden")
    column.locator(".chosen").click()
    np.testing.assert_allclose(shades(column), before, atol=6e-4)
    assert column.locator(".translation").inner_text() == text


@pytest.mark.parametrize("way", ["drag", "click", "keyboard"])
def test_the_weight_of_a_row_is_moved_to_a_cell(show, client, way):
    page = show(client, "?model=deep")
    translate(page)
    column = model(page, "deep")
    before = shades(column)
    cell = column.locator(".matrix tbody tr").nth(1).locator("td").nth(3)
    cell.click()
    assert not column.locator(".changes").is_visible()  # a click alone reads a weight
    if way == "drag":
        column.locator(".matrix tbody tr").nth(1).locator("td").nth(0).hover()
        page.mouse.down()
        cell.hover()
        page.mouse.up()
    else:
        column.locator(".move").check()
    if way == "click":
        cell.click()
    if way == "keyboard":
        cell.focus()
        page.keyboard.press("Enter")
    wait_for_comparison(page, column, "layer 2, head 1: ")
    after = shades(column)
    np.testing.assert_allclose(after[1], np.eye(before.shape[1])[3], atol=1e-3)
    np.testing.assert_allclose(after[0], before[0], atol=6e-4)
    if way == "keyboard":
        focused = "(e => [e.parentNode.sectionRowIndex, e.cellIndex - 1])(document.activeElement)"
        assert page.evaluate(focused) == [1, 3]
    column.locator(".units").select_option("pieces")
    weights = shades(column)
    rows = [row.tolist() if 0.999 < row.sum() < 1.001 and row.max() > 0.999 else None for row in weights]
    given = [{"layer": 2, "head": 1, "weights": rows[: max(i for i, row in enumerate(rows) if row) + 1]}]
    assert column.locator(".after").inner_text() == asked(client, given)[0]


def test_changes_end_with_the_next_translation(show, client):
    page = show(client, "?model=deep")
    translate(page)
    column = model(page, "deep")
    before = shades(column)
    column.locator(".silence").click()
    wait_for_comparison(page, column, "silenced")
    column.locator(".n-best tbody tr").nth(1).click()
    second = column.locator(".n-best tbody td:last-child").nth(1).inner_text()
    column.locator(".before", has_text=second).wait_for()
    assert (shades(column) == 0).all()
    translate(page)
    page.wait_for_function(
        "() => document.querySelector('.compare').hidden && !document.querySelector('.attention').hidden"
    )
    np.testing.assert_allclose(shades(column), before, atol=6e-4)


def test_the_comparison_is_not_wider_than_the_window(show, client):
    page = show(client, "?model=deep", viewport={"width": 360, "height": 800}, color_scheme="dark")
    translate(page, "seven red dogs " * 6 + "verylongword" * 10)
    column = model(page, "deep")
    column.locator(".level").click()
    wait_for_comparison(page, column, "uniform")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


# --- markup ---

TAGGED = "seven <b>red dogs</b> see <i>a <code>small</code></i> <a href='x.html'>house</a>"


def carry(page, text):
    page.check("#markup")
    translate(page, text)


def test_bold_in_bold_out(show, client):
    page = show(client, viewport={"width": 360, "height": 800}, color_scheme="dark")
    page.uncheck("#models input[value=none]")
    carry(page, TAGGED)
    for name in ("deep", "plain"):
        request = {"model": name, "text": TAGGED, "beam_size": 5, "n_best": 3, "markup": True}
        (sentence,) = client.post("/api/translate", request).json["sentences"]
        column, spans = model(page, name), {span["tag"]: span for span in sentence["spans"]}
        assert column.locator(".tagged").text_content() == sentence["translation"]
        assert column.locator(".translation").text_content() == sentence["n_best"][0]["text"]
        for tag, shown in (("<b>", "b"), ("<i>", "i"), ("<code>", "i code, code"), ("<a href='x.html'>", "span")):
            node = column.locator(".translation").locator(shown)
            assert node.text_content() == spans[tag]["text"]
            assert node.get_attribute("title") == f"{tag} confidence {spans[tag]['confidence']:.2f}"
            assert node.get_attribute("href") is None
        style = "(node, name) => getComputedStyle(node)[name]"
        assert int(column.locator(".translation b").evaluate(style, "fontWeight")) >= 700
        assert column.locator(".translation i").evaluate(style, "fontStyle") == "italic"
        assert "mono" in column.locator(".translation code").evaluate(style, "fontFamily")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert parse_qs(urlsplit(page.url).query)["markup"] == ["1"]
    page.click("#markup")  # translates again
    page.wait_for_function("() => !document.querySelector('.translation b') && status.textContent !== 'Translating …'")
    assert not model(page, "deep").locator(".tagged").is_visible()


def test_terms_of_the_glossary_are_listed(show, serve, tmp_path):
    (tmp_path / "terms.tsv").write_text("red\tBLUE\nbook\tA\n", "utf-8")
    page = show(serve("deep", glossary=str(tmp_path / "terms.tsv")))

    def lose_one(route):
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace('"used":true', '"used":false', 1))

    terms = model(page, "deep").locator(".terms")
    translate(page, "seven red dogs\na red book")
    assert terms.inner_text() == "Terms of the glossary: red → BLUE, book → A"
    page.route("**/api/stream", lose_one)
    translate(page, "red")
    assert terms.inner_text() == "Terms of the glossary: red → BLUE (not there as whole words)"
    translate(page, "a house")
    assert not terms.is_visible()


def test_a_span_marks_its_words_in_both_lines(show, client):
    page = show(client, "?model=deep&markup=1&text=" + quote(TAGGED))
    page.wait_for_selector("#status:has-text('Done')")
    column = model(page, "deep")
    shades(column)
    (sentence,) = client.post("/api/translate", {"model": "deep", "text": TAGGED, "markup": True}).json["sentences"]
    span = next(span for span in sentence["spans"] if span["tag"] == "<b>")
    column.locator(".translation b").hover()
    column.locator(".source-line .on").first.wait_for()
    assert column.locator(".source-line .on").all_inner_texts() == ["red", "dogs"]
    touched = column.locator(".target-line .on").all_inner_texts()
    assert " ".join(touched).strip() != ""
    assert span["text"].strip() in " ".join(touched)
    column.locator(".translation a, .translation > span").first.focus()
    assert column.locator(".source-line .on").all_inner_texts() == ["house"]
    carry(page, '  <!-- > --><i title="a > b"> </i>' + TAGGED)
    shades(column)
    column.locator(".translation b").hover()
    column.locator(".source-line .on").first.wait_for()
    assert column.locator(".source-line .on").all_inner_texts() == ["red", "dogs"]
    page.mouse.move(0, 0)
    page.focus("#text")
    assert column.locator(".source-line .on").count() == 0


def test_hostile_markup_is_text_or_harmless(show, client):
    lines = [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "red <b>dogs", "</b><svg onload=alert(1)>",
        "<g1>" * 20 + "red dogs" + "</g1>" * 20, "<b onclick='alert(1)' title=\"a>b\">red</b> &lt;i&gt; &amp;amp; dogs",
        "שלום <b>עולם</b> dogs", "😀 <i>👩‍👩‍👧 red</i> dogs", "<constructor>red</constructor><br>dogs<!-- <b> -->",
    ]  # fmt: skip
    page = show(client, "?model=deep")
    page.on("dialog", lambda dialog: pytest.fail("a script of the text ran"))
    carry(page, "\n".join(lines))
    column = model(page, "deep")
    request = {"model": "deep", "lines": lines, "beam_size": 5, "n_best": 3, "markup": True}
    sentences = client.post("/api/translate", request).json["sentences"]
    assert [index for index, sentence in enumerate(sentences) if "error" in sentence] == [2, 3]
    plain = [sentence["n_best"][0]["text"] if "spans" in sentence else sentence["source"] for sentence in sentences]
    assert column.locator(".translation").text_content() == "\n".join(plain)
    for number in (3, 4):
        assert f"Line {number}: markup: " in column.locator(".error").inner_text()
    names = "nodes => [...new Set(nodes.flatMap(n => [n.localName, ...n.getAttributeNames()]))].sort()"
    assert column.locator(".translation *").evaluate_all(names) == ["b", "br", "i", "span", "tabindex", "title"]
    inner = " > ".join(["span"] * 20)
    assert column.locator(f".translation > {inner}").text_content() == sentences[4]["n_best"][0]["text"].strip()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
