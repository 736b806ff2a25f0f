"""Inline markup: parsing, projection along attention, and writing, for made and hostile lines."""

import random
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from nmt.alignment import markup
from nmt.alignment.markup import MAX_UNITS, Tag, parse_markup, project, render, unit_weights, units

WORDS = [
    *(
        "click",
        "Haus",
        "x_1",
        "1.5",
        "e\u0301te\u0301",
        "naïve",
        "don't",
        "AT&amp;T",
        "&lt;b&gt;",
        "&#65;",
        "&nbsp;",
        "R&D",
    ),
    *("שלום", "\u200fעולם", "مرحبا", "می\u200cخواهم", "नमस्ते", "ภาษาไทย", "日本語", "テスト", "中文text", "한국어"),
    *("👩\u200d👩\u200d👧", "🇩🇪🇫🇷", "👍🏽", "☂\ufe0f", ",", ".", "…", "„", "“", "(", ")", "—", "%", "{name}", "a>b"),
]
SPACES = [" ", " ", " ", "", "  ", "\u00a0", "\u3000", "\u200b", "\t"]


def text_of(rng: random.Random, most: int) -> str:
    return "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(rng.randint(0, most)))


def tagged(rng: random.Random, depth: int, number: list[int]) -> str:
    """Return well-formed markup: every tag has its own number."""
    parts = [text_of(rng, 2)]
    for _ in range(rng.choice([0, 1, 1, 2, 3]) if depth else 0):
        number[0] += 1
        opening = rng.choice(["b id='{}'", 'a href="x?a=1&amp;b=2" id="{}"', "g{}", 'x:y.z-w data-é="{}>"']).format(
            number[0]
        )
        kind = rng.random()
        if kind < 0.15:
            parts.append(f"<{opening}/>")
        else:
            inner = "" if kind < 0.25 else rng.choice(".,…") if kind < 0.35 else tagged(rng, depth - 1, number)
            parts.append(f"<{opening}>{inner}</{opening.split(' ')[0]}>")
        parts.append(text_of(rng, 2))
    return "".join(parts)


def hostile(rng: random.Random) -> str:
    """Return a line with something wrong in it, mostly."""
    line = tagged(rng, 4, [0])
    junk = [
        "<",
        ">",
        "</b>",
        "<b>",
        "<i>",
        "</i>",
        "<!--",
        "-->",
        "<!-- x -->",
        "<?x?>",
        "<![CDATA[x]]>",
        "&",
        "&#0;",
        "&#10;",
    ]
    junk += [
        "<br>",
        "<br/>",
        "</ b>",
        "<b",
        "b>",
        "<1>",
        '<b a="',
        "<>",
        "</>",
        "&unknown;",
        "&#xd800;",
        "<B>",
        "<b/><b></b>",
    ]
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, len(line))
        line = line[:place] + rng.choice(junk) + line[place + rng.choice([0, 0, 1, 5]) :]
    return line


def deep(rng: random.Random, depth: int = 20) -> str:
    line = text_of(rng, 3)
    for number in range(depth):
        before, after = (rng.choice(["", text_of(rng, 1)]) for _ in range(2))
        line = f"{before}<t{number}>{line}</t{number}>{after}"
    return line


def made_lines(num: int) -> list[str]:
    rng = random.Random(5)
    kinds = [lambda: tagged(rng, rng.randint(0, 4), [0]), lambda: hostile(rng), lambda: deep(rng), lambda: hostile(rng)]
    return [kinds[i % len(kinds)]() for i in range(num)]


def family(tags: list[Tag]) -> list[tuple[str, str, str]]:
    """Return each element with its opening tag, its name and the opening tag of its parent, sorted."""
    return sorted((tag.opening, tag.name, tags[tag.parent].opening if tag.parent >= 0 else "") for tag in tags)


def check_carried(line: str, marked: markup.MarkedText, translation: str, output: str) -> None:
    """Assert that the output is well-formed, has the text of the translation, and every tag in its place."""
    again = parse_markup(output.replace("<br", "<hr"))  # no space of a <br>
    assert again.text == translation, line
    assert family(again.tags) == family([t._replace(opening=t.opening.replace("<br", "<hr")) for t in marked.tags]), (
        line
    )


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return made_lines(10_000)


def test_every_tag_of_ten_thousand_lines_comes_out_again_or_the_line_has_a_reason(lines: list[str]) -> None:
    rng, random_links = random.Random(7), np.random.default_rng(7)
    refused = carried = 0
    for line in lines:
        reason = ""
        try:
            marked = parse_markup(line)
        except ValueError as error:
            reason = str(error)
        if reason:
            assert re.fullmatch("markup: .+", reason)
            refused += 1
            continue
        translation = parse_markup(text_of(rng, 8)).text
        target = units(translation)
        shape = len(target), len(marked.units())
        weights = random_links.random(shape) ** 4 if rng.random() < 0.5 else random_links.random(shape) < 0.2
        spans = project(marked, translation, weights)
        assert [span.tag for span in spans] == marked.tags
        edges = {edge for unit in target for edge in unit} | {0, len(translation)}
        for i, span in enumerate(spans):
            assert {span.start, span.end} <= edges
            assert 0 <= span.confidence <= 1 + 1e-9
            outer = spans[span.tag.parent] if span.tag.parent >= 0 else None
            low, high = (outer.start, outer.end) if outer else (0, len(translation))
            assert low <= span.start <= span.end <= high
            if span.start == span.end and marked.text[span.tag.start : span.tag.end].strip(" \u200b\t\u00a0\u3000"):
                # there was no unit left for it
                others = [s for j, s in enumerate(spans) if j != i and s.tag.parent == span.tag.parent]
                assert all(
                    any(s.start <= start and end <= s.end for s in others)
                    for start, end in target
                    if low <= start and end <= high
                ), line
        check_carried(line, marked, translation, render(translation, spans))
        carried += len(spans)
    assert refused > 2000
    assert carried > 10_000


def test_written_markup_is_xml(lines: list[str]) -> None:
    rng = random.Random(3)
    for _ in range(500):
        line = tagged(rng, 4, [0])
        marked, translation = parse_markup(line), parse_markup(text_of(rng, 9)).text
        weights = np.random.default_rng(1).random((len(units(translation)), len(marked.units())))
        root = ElementTree.fromstring(
            f"<x>{render(translation, project(marked, translation, weights))}</x>".replace("x:y", "xy")
        )
        assert "".join(root.itertext()) == translation
        assert sum(1 for _ in root.iter()) == len(marked.tags) + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't x_1 é1.", ["don", "'", "t", "x_1", "é1", "."]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("👩\u200d👩\u200d👧🇩🇪🇫🇷👍🏽 ok", ["👩\u200d👩\u200d👧", "🇩🇪", "🇫🇷", "👍🏽", "ok"]),
        ("日本go", ["日", "本", "go"]),
        ("한국어 \u200fשלום,", ["한국어", "\u200fשלום", ","]),
        ("a\u200bb می\u200cخواهم", ["a", "b", "می\u200cخواهم"]),
        ("", []),
        (" \u3000", []),
    ],
)
def test_units(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in units(text)] == expected


def test_parsing() -> None:
    marked = parse_markup('<a href="x">Go &amp; <i>see</i></a><br/>&lt;b&gt; R&D 1 > 0 <img src=a> <!-- <no> -->')
    assert marked.text == "Go & see <b> R&D 1 > 0  "
    assert marked.tags == [
        Tag('<a href="x">', "a", 0, 8),
        Tag("<i>", "i", 5, 8, 0),
        Tag("<br/>", "", 9, 9),  # a space, so that it does not join two words
        Tag("<img src=a>", "", 23, 23),
        Tag("<!-- <no> -->", "", 24, 24),
    ]
    assert [tag.opening for tag in parse_markup("<a href=http://x.y/z?q>b</a><hr id=a/b/><?php x ?>").tags] == [
        "<a href=http://x.y/z?q>",
        "<hr id=a/b/>",
        "<?php x ?>",
    ]
    assert parse_markup("a&#10;b&#0;&#xD800;&unknown;").text == "a b\ufffd\ufffd&unknown;"


NO_COMMENT = (
    'markup: the "<" at character 2 is no whole comment or instruction, which are all that may begin so; remove it'
)
NO_TAG = (
    'markup: the "<" at character 2 begins a tag that cannot be read; write attributes as name="value", '
    "< in them as &lt;, and > at the end"
)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x <b>bold", "markup: <b> at character 3 is not closed; add </b>"),
        ("bold</b>", "markup: </b> at character 5 closes nothing; remove it"),
        ("<b><i>x</b></i>", "markup: </b> at character 8 crosses <i>, opened at character 4: close that first"),
        ("a < b", 'markup: the "<" at character 3 begins no tag; write &lt; for the character'),
        (
            "<b>" + "x " * (MAX_UNITS + 1) + "</b>",
            "markup: the text has more than 4,000 words, marks and tags; split the line",
        ),
        (
            "x <i/>" * (MAX_UNITS // 2 + 1),
            "markup: the text has more than 4,000 words, marks and tags; split the line",
        ),
        *(
            (f"x{text}", NO_COMMENT)
            for text in ("<!-- a", "<!-- a -- b -->", "<![CDATA[a]]>", "<!DOCTYPE html>", "<??>")
        ),
        *((f"x{text}y</a>", NO_TAG) for text in ('<a title="b < c">', '<a x="1"y="2">', "<a x='1>", "<a x==1>", "<a ")),
    ],
)
def test_markup_that_is_not_well_formed(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_markup(line)


def carried(source: str, translation: str, links: list[tuple[int, int]]) -> str:
    """Return the translation with the tags of the source, carried along links of their units."""
    marked = parse_markup(source)
    weights = np.zeros((len(units(translation)), len(marked.units())))
    for i, j in links:
        weights[j, i] = 1
    return render(translation, project(marked, translation, weights))


def test_an_element_without_text_in_a_long_text() -> None:
    words = [f"w{i}" for i in range(300)]
    for place in (3, 70, 150, 299):
        source = " ".join([*words[:place], "<i/>", *words[place:]])
        moved = [(i, (i + 40) % 300) for i in range(300)]  # the last 40 come first
        line = carried(source, " ".join(words).replace("w", "v"), moved)
        assert line.replace("<i/>", "") == " ".join(words).replace("w", "v")
        assert len(line[: line.index("<i/>")].split()) == (place + 40) % 300


def test_projection_along_links() -> None:
    links = [(0, 0), (1, 2), (2, 1), (3, 3)]
    assert carried("we <b>go</b> <i>now</i>!", "wir jetzt gehen!", links) == "wir <i>jetzt</i> <b>gehen</b>!"
    assert carried("we <b>go <i>now</i></b>!", "wir jetzt gehen!", links) == "wir <b><i>jetzt</i> gehen</b>!"
    assert carried("<b>we go now!</b>", "wir jetzt gehen!", links) == "<b>wir jetzt gehen!</b>"
    assert carried("we go<br/> now!", "wir gehen jetzt!", [(i, i) for i in range(4)]) == "wir gehen<br/> jetzt!"
    assert carried("we go <x/>now!", "wir gehen jetzt!", [(i, i) for i in range(4)]) == "wir gehen <x/>jetzt!"
    assert carried("<x/>we go now<y/>", "wir jetzt gehen", links[:3]) == "<x/>wir jetzt gehen<y/>"
    # a range is contiguous: what is between two linked words belongs to it
    assert carried("I <b>rule</b> it out", "a b c d", [(1, 1), (1, 3)]) in ("a <b>b c d</b>", "a <b>b</b> c d")
    # as many units as elements: each has one
    assert carried("<a>x</a><b>y</b><c>z</c>", "1 2 3", []).count(">1<") == 1
    assert carried("<a>x</a><b>y</b>", "1", [(1, 0)]) == "<a></a><b>1</b>"
    assert carried("<a>x</a><b>y</b> z", "1 2", [(0, 0), (1, 1)]) == "<a>1</a> <b>2</b>"
    assert carried("<a>x</a> <b>y</b>", "", []) == "<a></a><b></b>"


def test_identical_words_find_each_other_without_attention() -> None:
    even = np.full((4, 4), 0.25)
    marked = parse_markup("the <code>GlobalScope</code> of LibreOffice")
    spans = project(marked, "LibreOffice kennt GlobalScope hier", even)
    assert render("LibreOffice kennt GlobalScope hier", spans) == "LibreOffice kennt <code>GlobalScope</code> hier"


@pytest.mark.parametrize("seed", range(20))
def test_the_best_range_is_that_of_all_ranges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, least = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    mass, taken = rng.random(size), rng.random(size) < 0.3
    free = [(s, e) for s in range(size) for e in range(s + 1, size + 1) if not taken[s:e].any()]
    allowed = [(s, e) for s, e in free if e - s >= least] or free
    score, start, end = markup._best_range(mass, taken, least)
    if free:
        assert (start, end) in allowed
        assert score == pytest.approx(max((mass[s:e] - markup.THRESHOLD).sum() for s, e in allowed), abs=1e-6)
    else:
        assert score < -1000


def test_weights_of_units() -> None:
    # of the source "ab," the subwords are "a" and "b,", of the target "xy z" they are "x" and "y z"
    matrix = [[0.5, 0.5], [0.2, 0.8]]
    result = unit_weights(matrix, [(0, 1), (1, 3)], [(0, 1), (1, 4)], units("ab,"), units("xy z"))
    # "b," gives half of its attention to "ab" and half to ","; "xy" is the mean of both rows, "z" is the second
    assert result == pytest.approx(np.array([[(0.75 + 0.6) / 2, (0.25 + 0.4) / 2], [0.6, 0.4]]))
    rng = np.random.default_rng(0)
    matrix = rng.dirichlet(np.ones(5), 4)
    result = unit_weights(
        matrix,
        [(0, 3), (3, 4), (5, 8), (8, 9), (9, 12)],
        [(0, 2), (2, 5), (5, 6), (6, 9)],
        units("abcd efgh ij"),
        units("abcd efgh"),
    )
    assert result.shape == (2, 3)
    assert result.sum(1) == pytest.approx(np.ones(2))
