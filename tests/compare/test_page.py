"""compare.html, as text and in a real browser."""

import dataclasses
import json
import re
import statistics
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from nmt.alignment import to_word_matrix
from nmt.compare import RunComparison, compare_runs, sentences
from nmt.compare.page import page
from nmt.compare.plots import MARKS, STYLES
from nmt.compare.sentences import section, select_sentences, wins
from nmt.compare.tables import SECTIONS
from nmt.evaluation.report.html import read_resource
from nmt.evaluation.report.weight_encoding import MAX_QUANTIZATION_ERROR

ATOL = MAX_QUANTIZATION_ERROR + 0.001


@pytest.fixture
def show(open_file, tmp_path):
    """Return a function that opens a comparison."""

    def opened(comparison, address="", num_sentences=20, **context):
        (tmp_path / "compare.html").write_text(page(comparison, SECTIONS, num_sentences), encoding="utf-8")
        opened_page = open_file(tmp_path / "compare.html", address, **context)
        opened_page.wait_for_selector("#models .heat tbody td")
        return opened_page

    return opened


def attention(result, number: int) -> Any:
    """Return (L, H, T, S) weights of a sentence, and the words of rows and columns."""
    with np.load(result.report / "alignments.npz") as stored:
        return [stored[f"{number}.{name}"] for name in ("weights", "target_words", "source_words")]


def shades(opened_page, selector: str) -> np.ndarray:
    script = (
        "rows => rows.map(r => [...r.querySelectorAll('td')].map(c => Number(c.style.getPropertyValue('--w')) || 0))"
    )
    return np.array(opened_page.eval_on_selector_all(selector, script))


def wait(opened_page, option: int) -> int:
    """Wait until the sentence of an option is shown; return its number.

    The page's Content-Security-Policy does not allow to wait for a script.
    """
    number = int(opened_page.inner_text(f"#option-{option} .number"))
    opened_page.locator("#name", has_text=re.compile(f"^Sentence {number}$")).wait_for()
    return number


def visible(opened_page, attribute: str) -> list[str]:
    script = "(all, name) => all.filter(e => !e.hidden).map(e => e.getAttribute(name))"
    return opened_page.eval_on_selector_all(f"figure[{attribute}]", script, attribute)


# --- without a browser ---


def test_the_page_is_whole_and_holds_the_numbers_of_the_tables(make_comparison) -> None:
    comparison = make_comparison()
    text = page(comparison, SECTIONS)
    ends: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("meta", "br", "line", "path", "input"):
                ends.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert tag in ("path", "line") or ends.pop() == tag

    Balanced().feed(text)
    assert ends == []
    assert "http://a.example" not in re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    for group in comparison.groups:
        assert f"{group.summaries['bleu'].mean:.2f} ± {group.summaries['bleu'].deviation:.2f}" in text
        assert f"{group.summaries['bleu 31-40'].mean:.2f}" in text
    assert all(f">{bucket}</th>" in text and f">{bucket}</text>" in text for bucket in ("0–10", "31–40"))
    assert any(contrast.difference.mean < 0 for contrast in comparison.contrasts)
    assert re.findall(r"[ >(\[]-\d.*", re.sub(r"<(svg|script|style).*?</\1>", "", text, flags=re.DOTALL)) == []
    assert "difference: mean ± standard deviation over pairs of runs" in text
    assert "2 seeds in a group are few" in text
    assert "model.attention.score" in text
    shorter = page(comparison, ["scores"], 0)
    assert 'id="browser"' not in shorter
    assert '<figure class="card" data-score' not in shorter
    assert '<figure class="card" data-length' not in shorter


def test_half_of_the_sentences_are_spread_over_the_lengths(make_comparison) -> None:
    comparison = make_comparison()
    chosen = select_sentences(comparison.groups, 4)
    assert [each.number for each in chosen[:2]] == [3, 4]  # the shortest and the longest
    assert len({each.number for each in chosen}) == 4
    spread = {
        i: max(map(np.mean, values)) - min(map(np.mean, values))
        for i in range(5)
        for values in [[[run.sentence_chrf[i] for run in group.results] for group in comparison.groups]]
    }
    rest = sorted(set(range(5)) - {3, 4}, key=lambda i: -spread[i])
    assert [each.number for each in chosen[2:]] == rest[:2]
    assert len(select_sentences(comparison.groups, 100)) == 5


def test_matrices_that_are_too_many_are_fewer(make_comparison) -> None:
    whole, small = (
        section(make_comparison(("additive", "scaled")), 5),
        section(make_comparison(("dot", "general")), 5, 6000),
    )
    models = [json.loads(re.search(r'id="texts">(.*?)</script>', text).group(1))["models"] for text in (whole, small)]
    assert [model["full"] for model in models[0]] == [5, 5]
    assert max(model["full"] for model in models[1]) < 5
    assert len(small) < len(whole)


def test_damaged_alignments_are_one_sentence(make_comparison) -> None:
    comparison = make_comparison()
    file = comparison.groups[0].results[0].report / "alignments.npz"
    for content in (b"no archive", file.read_bytes()[:-200]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"alignments\.npz: .*; evaluate the run again$"):
            page(comparison, SECTIONS)


def test_groups_are_distinguishable_without_color() -> None:
    assert len(set(MARKS)) == STYLES
    css = read_resource("compare.css", package="nmt.compare")
    dashes = re.findall(r"--dash: ([\d ]+);", css)
    assert len(set(dashes)) == STYLES - 1  # the baseline's line is whole

    def linear(color: str) -> np.ndarray:
        parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)

    def lab(color: str, seen: list[list[float]]) -> np.ndarray:
        """Return CIELAB (D65) of a color under a color vision."""
        to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        xyz = to_xyz @ np.clip(np.array(seen) @ linear(color), 0, 1) / [0.9505, 1, 1.089]
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    everyone = [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        # Machado et al. 2009, severity 1: without green, without red cones
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ]
    for scheme, card in zip(re.findall(r":root {[^}]*}", css), ("#ffffff", "#1b2027"), strict=True):
        colors = re.findall(r"--g\d: (#[0-9a-f]{6})", scheme)
        assert len(colors) == STYLES
        for i, color in enumerate(colors):
            pair = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (color, card))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) > 3, (color, card)
            for other in colors[:i]:
                for seen in everyone:
                    assert np.linalg.norm(lab(color, seen) - lab(other, seen)) > 18, (color, other)


def gains(comparison: RunComparison, group: int) -> list[float]:
    """Return by how much the mean chrF of each sentence, to four decimals, is above that of the baseline."""
    means = [
        [
            round(statistics.fmean(values), 4)
            for values in zip(*(run.sentence_chrf for run in each.results), strict=True)
        ]
        for each in (comparison.groups[0], comparison.groups[group])
    ]
    return [round(other - base, 4) for base, other in zip(*means, strict=True)]


def with_ties(comparison: RunComparison) -> RunComparison:
    """Give every group the baseline's chrF in the second sentence."""
    results = [run for group in comparison.groups for run in group.results]
    changed = [
        dataclasses.replace(run, sentence_chrf=(run.sentence_chrf[0], 40.0 + run.seed, *run.sentence_chrf[2:]))
        for run in results
    ]
    return compare_runs(changed, num_resamples=0)


def test_wins_losses_and_ties(make_comparison) -> None:
    comparison = with_ties(make_comparison())
    expected = []
    for m in (1, 2):
        values = gains(comparison, m)
        counts = (sum(v > 0 for v in values), sum(v < 0 for v in values), sum(v == 0 for v in values))
        assert (sum(counts), counts[2]) == (5, 1)
        expected.append([comparison.groups[m].label, *map(str, counts)])
    assert wins(comparison.groups) == expected
    fewer = compare_runs([run for group in comparison.groups for run in group.results][:3], num_resamples=0)
    base, other = (group.results[0].sentence_chrf for group in fewer.groups)  # the seed that both have
    values = [round(b - a, 4) for a, b in zip(base, other, strict=True)]
    shown = json.loads(re.search(r'id="texts">(.*?)</script>', section(fewer, 5)).group(1))["sentences"]
    assert sorted(row["of"][1]["d"] for row in shown) == pytest.approx(sorted(values))
    assert wins(fewer.groups) == [["scaled", *(str(sum(np.sign(v) == sign for v in values)) for sign in (1, -1, 0))]]
    assert len({tuple(row[1:]) for row in expected}) == 2  # otherwise the test would show less
    html = page(comparison, SECTIONS, 1)
    for label, *counts in expected:
        assert f'<th scope="row">{label}</th>' + "".join(f"<td>{count}</td>" for count in counts) in html


def test_texts_beyond_a_limit_are_left_out(make_comparison, monkeypatch) -> None:
    comparison = make_comparison()
    html = section(comparison, 2)
    content = json.loads(re.search(r'id="texts">(.*?)</script>', html).group(1))
    assert sorted(sentence["n"] for sentence in content["sentences"]) == [1, 2, 3, 4, 5]
    assert [len(each["of"]) for each in content["sentences"]] == [3] * 5
    assert "5 of 5 sentences, 2 with attention: 1 spread" in html
    monkeypatch.setattr(sentences, "MAX_TRANSLATIONS", 6)
    html = section(comparison, 1)
    content = json.loads(re.search(r'id="texts">(.*?)</script>', html).group(1))
    assert [sentence["n"] for sentence in content["sentences"]] == [4, 1, 2]  # the shortest, and the first two
    assert "3 of 5 sentences, 1 with attention" in html


# --- in a browser ---


def listed(opened_page) -> list[int]:
    return [int(text) for text in opened_page.locator("#list .number").all_inner_texts()]


def test_sentences_are_found_by_any_of_their_texts(show, make_comparison) -> None:
    comparison = make_comparison()
    opened = show(comparison, num_sentences=2)
    chosen = [each.number + 1 for each in select_sentences(comparison.groups, 2)]
    assert listed(opened) == [*chosen, *(n for n in range(1, 6) if n not in chosen)]
    assert opened.inner_text("#match-count") == "5 of 5 sentences"
    hypotheses = comparison.groups[2].results[0].hypotheses
    queries = {"CHURCH": [1], "تحدث الملك إلى الأطفال": [3], "eine zahl": [2], "<img src": [3], hypotheses[4]: [5]}
    references = comparison.groups[0].results[0].references
    assert all(text not in run.hypotheses for text in references[::4] for run in comparison.groups[0].results)
    for query, numbers in {**queries, references[0]: [1]}.items():
        opened.fill("#search", query)
        assert listed(opened) == numbers
        assert opened.inner_text("#match-count") == "1 of 5 sentences"
        opened.locator("#name", has_text=f"Sentence {numbers[0]}").wait_for()
    opened.fill("#search", "no such words")
    assert (listed(opened), opened.inner_text("#match-count")) == ([], "0 of 5 sentences")
    opened.focus("#list")
    opened.keyboard.press("ArrowDown")
    opened.fill("#search", "")
    number = next(n for n in range(1, 6) if n not in chosen)
    opened.locator("#list [role=option]", has=opened.locator(f".number:text-is('{number}')")).click()
    opened.locator("#name", has_text=f"Sentence {number}").wait_for()
    assert opened.inner_text("#values") == "without attention"
    for m, group in enumerate(comparison.groups):
        card = opened.locator(f"#models article[data-group='{m}']")
        assert " ".join(card.locator(".translation").inner_text().split()) == group.results[0].hypotheses[number - 1]
        mean = statistics.fmean(run.sentence_chrf[number - 1] for run in group.results)
        assert f"(mean of 2 seeds: {mean:.1f})" in card.inner_text()
        assert not card.locator(".heat").is_visible()
        assert not card.locator("select, input").first.is_visible()


def test_sentences_that_a_group_wins_or_loses(show, make_comparison) -> None:
    comparison = with_ties(make_comparison())
    opened = show(comparison)
    options = opened.locator("#outcome option").all_inner_texts()
    assert options[:3] == ["all sentences", "sentences with attention", "scaled: wins"]
    assert len(options) == 8
    for m in (1, 2):
        values = gains(comparison, m)
        for sign, result in ((1, "wins"), (-1, "losses"), (0, "ties")):
            opened.select_option("#outcome", label=f"{comparison.groups[m].label}: {result}")
            numbers = [i + 1 for i, value in enumerate(values) if np.sign(value) == sign]
            numbers.sort(key=lambda n: -abs(values[n - 1]))
            assert listed(opened) == numbers
            shown = [text.replace("−", "-") for text in opened.locator("#list .why").all_inner_texts()]
            assert [float(text) for text in shown] == pytest.approx([values[n - 1] for n in numbers], abs=0.0051)
    opened.select_option("#outcome", label="scaled: wins")
    wins_of_scaled = listed(opened)
    word = comparison.groups[0].results[0].sources[wins_of_scaled[-1] - 1].split()[0]
    opened.fill("#search", word)
    found = [
        n
        for n in wins_of_scaled
        if any(
            word in text
            for text in (
                comparison.groups[0].results[0].sources[n - 1],
                comparison.groups[0].results[0].references[n - 1],
            )
        )
    ]
    assert listed(opened) == found
    opened.fill("#search", "")
    opened.click(f"#list [role=option]:nth-child({len(wins_of_scaled)})")
    opened.focus("#list")
    opened.keyboard.press("Home")
    opened.locator("#name", has_text=f"Sentence {wins_of_scaled[0]}").wait_for()
    opened.click("#next")
    opened.locator("#name", has_text=f"Sentence {wins_of_scaled[min(1, len(wins_of_scaled) - 1)]}").wait_for()


def test_the_dot_plot_shows_the_chosen_score(show, make_comparison) -> None:
    opened = show(make_comparison())
    assert visible(opened, "data-metric") == ["bleu"]
    opened.select_option("[data-choice=metric]", "aer")
    assert visible(opened, "data-metric") == ["aer"]
    assert opened.locator("figure[data-metric=aer] h3").inner_text() == "AER % (lower is better)"
    assert not opened.is_visible("text=Holm seeds")
    opened.click("summary:has-text('p-values')")
    assert opened.is_visible("text=Holm seeds")


def test_charts_are_drawn_and_a_choice_changes_them(show, make_comparison) -> None:
    opened = show(make_comparison())
    assert visible(opened, "data-axis") == ["updates"] * 3
    inside = """svgs => svgs.filter(svg => !svg.closest("figure").hidden).flatMap(svg => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text, .line, .band, .mark, .whisker")].map(e => e.getBoundingClientRect())
            .map(r => r.width + r.height > 0 && r.left >= box.left - 1 && r.right <= box.right + 1
                && r.top >= box.top - 1 && r.bottom <= box.bottom + 1);
    })"""
    drawn = opened.eval_on_selector_all("figure svg", inside)
    assert len(drawn) > 60
    assert all(drawn)
    opened.select_option("[data-choice=axis]", "minutes")
    assert visible(opened, "data-axis") == ["minutes"] * 3

    def marks() -> list[str]:
        script = "all => all.filter(e => !e.closest('figure').hidden).map(e => e.getAttribute('transform'))"
        return opened.eval_on_selector_all("figure[data-cost] .mark", script)

    assert visible(opened, "data-cost") == ["parameters"]
    seen = [marks()]
    for score, cost in (("bleu", "tokens_per_second"), ("bleu", "flops"), ("chrf", "flops")):
        opened.select_option("[data-choice=cost]", cost)
        opened.select_option("[data-choice=score]", score)
        assert (visible(opened, "data-cost"), visible(opened, "data-score")) == ([cost], [score])
        seen.append(marks())
        assert len(seen[-1]) == 3
        assert seen[-1] not in seen[:-1]
    opened.select_option("[data-choice=score]", "aer")
    assert len(marks()) == 2  # the model without attention has none


def test_bands_and_marks_match_the_numbers(show, make_comparison) -> None:
    comparison = make_comparison()
    opened = show(comparison)
    script = (
        """paths => paths.map(p => [...p.getAttribute("d").matchAll(/([\\d.]+) ([\\d.]+)/g)].map(m => Number(m[2])))"""
    )
    bands = opened.eval_on_selector_all('figure[data-length="bleu"] .band', script)
    titles = opened.locator('figure[data-length="bleu"] .mark title').all_text_contents()
    heights, values = [], []
    for i, group in enumerate(comparison.groups):
        for k, bucket in enumerate(("0-10", "31-40")):
            by_seed = group.summaries[f"bleu {bucket}"].values
            heights += [bands[i][k], bands[i][3 - k]]
            values += [max(by_seed), min(by_seed)]
            assert titles[2 * i + k].startswith(f"{group.label}: {np.mean(by_seed):.2f} (")
    assert np.corrcoef(heights, values)[0, 1] == pytest.approx(-1, abs=1e-3)


def test_a_group_is_hidden_everywhere_and_shown_again(show, make_comparison) -> None:
    opened = show(make_comparison())
    shown = "all => all.filter(e => getComputedStyle(e).display !== 'none').length"
    before = opened.eval_on_selector_all("[data-group='1']", shown)
    opened.focus("[data-toggle='1']")
    opened.keyboard.press("Enter")
    assert opened.eval_on_selector_all("[data-group='1']", shown) == 0
    assert opened.get_attribute("[data-toggle='1']", "aria-pressed") == "false"
    opened.keyboard.press("Enter")
    assert opened.eval_on_selector_all("[data-group='1']", shown) == before > 5


def test_a_sentence_shows_every_models_matrix(show, make_comparison) -> None:
    comparison = make_comparison()
    opened = show(comparison)
    for option in (0, 2, 3):
        opened.click(f"#option-{option}")
        number = wait(opened, option)
        for m, group in enumerate(comparison.groups):
            run = group.results[0]
            card = f"#models article[data-group='{m}']"
            assert opened.inner_text(f"{card} .translation") == run.hypotheses[number - 1]
            if group.label == "none":
                assert "no attention" in opened.inner_text(card)
                assert opened.locator(f"{card} td").count() == 0
                continue
            weights, target_words, source_words = attention(run, number - 1)
            for layer, head in (("1", "3"), ("0", "2")):
                opened.select_option(f"{card} [data-of=layer]", layer)
                opened.select_option(f"{card} [data-of=head]", head)
                layers = weights[int(layer) - 1 : int(layer)] if layer != "0" else weights
                chosen = layers[:, int(head) - 1].mean(0)
                expected = to_word_matrix(
                    chosen.astype(np.float64), target_words.tolist(), source_words.tolist(), shift=0
                )
                np.testing.assert_allclose(shades(opened, f"{card} .heat tbody tr"), expected, atol=4 * ATOL)
            opened.select_option(f"{card} [data-of=layer]", "2")
            opened.select_option(f"{card} [data-of=head]", "1")
    assert opened.locator("img").count() == 0
    opened.select_option("#units", "pieces")
    assert shades(opened, "#models article[data-group='0'] .heat tbody tr").shape == weights.shape[2:]


def test_a_word_is_traced_through_every_model(show, make_comparison) -> None:
    comparison = make_comparison()
    opened = show(comparison, "#sentence-1")
    line = "spans => spans.map(s => Number(s.style.getPropertyValue('--w')) || 0)"
    opened.hover("#source-line span:nth-child(3)")
    for m in (0, 1):
        card = f"#models article[data-group='{m}']"
        matrix = shades(opened, f"{card} .heat tbody tr")
        np.testing.assert_allclose(opened.eval_on_selector_all(f"{card} .trace span", line), matrix[:, 2], atol=1e-6)
        assert opened.locator(f"{card} thead th.on").inner_text() == "house"
        assert "house" in opened.inner_text(f"{card} output")
    opened.focus("#models article[data-group='1'] .trace span[tabindex='0']")
    opened.keyboard.press("ArrowRight")
    matrix = shades(opened, "#models article[data-group='1'] .heat tbody tr")
    np.testing.assert_allclose(opened.eval_on_selector_all("#source-line span", line), matrix[1], atol=1e-6)
    assert opened.inner_text("#models article[data-group='0'] output") == ""
    opened.focus("#models article[data-group='0'] td[tabindex='0']")
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("ArrowRight")
    output = opened.inner_text("#models article[data-group='0'] output").rpartition(" ")[2]
    expected = shades(opened, "#models article[data-group='0'] .heat tbody tr")[1, 1]
    assert float(output) == pytest.approx(expected, abs=0.006)
    opened.keyboard.press("Tab")
    opened.focus("#source-line span[tabindex='0']")
    opened.keyboard.press("Escape")
    assert opened.locator(".trace .on").count() == 0
    opened.focus("#list")
    opened.keyboard.press("ArrowDown")
    chosen = int(opened.get_attribute("#list [aria-selected=true]", "id").rpartition("-")[2])
    number = wait(opened, chosen)
    assert number != 1
    assert opened.url.endswith(f"#sentence-{number}")


def test_a_page_opened_at_a_sentence_shows_it_and_matrices_fit_their_cards(show, make_comparison) -> None:
    opened = show(make_comparison(), "#sentence-3", viewport={"width": 1150, "height": 900})
    opened.wait_for_selector("#models td")
    assert opened.evaluate("scrollY") > 0
    assert abs(opened.evaluate("document.getElementById('sentence').getBoundingClientRect().top")) < 1
    opened.keyboard.press("Tab")  # begins at the top of the page all the same
    above = "document.activeElement.compareDocumentPosition(document.getElementById('sentence'))"
    assert opened.evaluate(above) == 4  # the sentence follows
    opened.select_option("#units", "pieces")
    sizes = "all => all.map(e => e.scrollWidth - e.clientWidth)"
    assert opened.eval_on_selector_all("#models .scroll:has(td)", sizes) == [0, 0]


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_nothing_is_wider_than_the_window_or_the_paper(show, make_comparison, width: int, scheme: str) -> None:
    scores = ("additive", "scaled", "none", "dot", "general", "cosine", "hybrid")
    opened = show(make_comparison(scores), viewport={"width": width, "height": 900}, color_scheme=scheme)
    for option in (0, 1):  # the shortest and the longest
        opened.click(f"#option-{option}")
        wait(opened, option)
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.set_viewport_size({"width": 720, "height": 1000})
    opened.emulate_media(media="print")
    assert not opened.is_visible("#list")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 720
