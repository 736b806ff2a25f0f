"""Markup, placeholders, prefixes and requests as JSON, with models of random weights."""

import html
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from nmt.alignment import AlignmentSource, StoredAlignmentSource
from nmt.alignment.markup import MarkedText, Tag, parse_markup, units
from nmt.alignment.markup import ProjectedSpan as SpanOf
from nmt.attention import AttentionConfig
from nmt.data import Tokenizer, TokenizerConfig
from nmt.evaluation.span_projection import span_score
from nmt.inference.glossary import load_glossary
from nmt.inference.line_request import LineRequest, LineTranslation
from nmt.inference.line_translator import LineTranslator
from nmt.inference.placeholders import PLACEHOLDER, lost_placeholders, with_spaces
from nmt.inference.translator import Translation, Translator
from nmt.models import build_model
from nmt.models.rnn import RNNConfig
from nmt.search import SearchConfig

TEXT = [f"the {a} {b} sees , hears and likes {c} things ." for a in "abcdef" for b in ("dog", "cat") for c in "xyz"]


def translator(score: str = "scaled", source: AlignmentSource | None = None, **tokenizer: Any) -> Translator:
    torch.manual_seed(1)
    config = TokenizerConfig(**{"vocab_size": 311, **tokenizer})
    trained = Tokenizer.train(config, [(line, line.upper()) for line in TEXT])
    model_config = RNNConfig(embedding_dim=8, hidden_size=8, attention=AttentionConfig(score=score, heads=2, dim=8))
    model = build_model(model_config, trained.source_size, trained.target_size, joint=True).eval()
    search = SearchConfig(beam_size=2, max_length_ratio=1, max_length_offset=3)
    carried = StoredAlignmentSource(source or AlignmentSource(), "")
    return Translator(model, trained, search, torch.device("cpu"), carried=carried)


def answers(
    lines: Sequence[str], max_length: int = 100, is_json: bool = False, **request: Any
) -> list[LineTranslation]:
    model = LineTranslator(translator(), max_length, LineRequest(**request), is_json)
    return model.translate_lines([line.encode() for line in lines])


def check_lines(lines: list[str], max_length: int) -> None:
    """Assert that every tag of a line comes out again in its place, or the line as it was with a reason."""
    for line, result in zip(lines, answers(lines, max_length, markup=True), strict=True):
        if result.error is not None:
            assert result.error.startswith("markup: ")
            assert result.text == line
            continue
        marked, again = parse_markup(line), parse_markup(result.text.replace("<br", "<hr"))
        assert again.text == result.n_best()[0].text
        parents = [
            sorted((t.opening.replace("<br", "<hr"), tags[t.parent].opening if t.parent >= 0 else "") for t in tags)
            for tags in (marked.tags, again.tags)
        ]
        assert parents[0] == parents[1]


def test_tags_of_lines_and_of_lines_in_parts() -> None:
    lines = [
        '<b>The dog</b> sees <a href="x?a=1&amp;b=2">the <i>cat</i></a>.<br/>',
        "<b>the dog sees things. <i>the cat</i> hears and likes things.</b> the a dog likes <u>x</u> things .",
        *(
            "<b></b>",
            "<b> </b>",
            "  <x/>  ",
            "",
            "plain &amp; simple",
            "a < b",
            "<b>x",
            "<b><i>x</b></i>",
            "<b>日本語</b>🙂<br>",
        ),
    ]
    check_lines(lines, 100)
    check_lines(lines, 12)


@pytest.mark.slow
def test_tags_of_made_lines() -> None:
    from tests.alignment.test_markup import made_lines

    check_lines([line.replace("\t", " ") for line in random.Random(1).sample(made_lines(2000), 300)], 60)


@pytest.mark.parametrize("second", ["<i>the cat</i> hears things.", "<i>the dog</i> sees things. the dog sees things."])
def test_parts_have_the_attention_of_each_part_in_its_place(second: str) -> None:
    model = LineTranslator(translator(), 12, LineRequest(markup=True))
    text = f"the dog sees things. {second}"
    (result,) = model.translate_lines([text.encode()])
    marked, whole = parse_markup(text), result.n_best()[0].text
    assert len(result.segments) > 1
    weights = model._unit_weights(result, marked, whole)
    # what no part has in common with another has no attention
    segments, start = [], 0
    for segment in result.segments:
        start = marked.text.index(segment, start)
        segments.append((start, start := start + len(segment)))
    blocks, place = [], 0
    for best in result.best:
        place = whole.index(best[0].text.strip(" "), place)
        blocks.append((place, place := place + len(best[0].text.strip(" "))))
    for (low, high), (first, last) in zip(blocks, segments, strict=True):
        rows = [i for i, (s, e) in enumerate(units(whole)) if low <= s and e <= high]
        outside = [j for j, (s, e) in enumerate(marked.units()) if e <= first or s >= last]
        assert not weights[np.ix_(rows, outside)].any()
        assert weights[rows].sum() > 0.5 * len(rows)


@pytest.mark.parametrize("shift", [0, 1])
def test_weights_of_units_are_sums_and_means_of_subwords(shift: int) -> None:
    model = LineTranslator(translator(source=AlignmentSource(shift=shift)), 100, LineRequest(markup=True))
    (result,) = model.translate_lines([b"the dog sees"])
    marked, text = MarkedText("the dog sees", []), result.n_best()[0].text
    weights = model._unit_weights(result, marked, text)
    target = result.best[0][0].tokens
    tokenizer, (source,) = model.translator.tokenizer, model.translator.tokenizer.encode_source(["the dog sees"])
    ((_, attention),) = model.translator.attention_weights([source], [target])
    rows = attention.mean((0, 1))[shift:]
    # subwords one by one, from their texts
    place, columns = 0, np.zeros((len(rows), 3))
    for i, index in enumerate(source):
        piece = tokenizer.decode_source([*source[:i], index])[place:]
        for j, (start, end) in enumerate(marked.units()):
            inside = sum(start <= at < end for at in range(place, place + len(piece)))
            letters = sum(any(a <= at < b for a, b in marked.units()) for at in range(place, place + len(piece)))
            columns[:, j] += rows[:, i] * inside / max(letters, 1)
        place += len(piece)
    assert weights.sum(1) == pytest.approx(weights.sum(1).clip(0, 1 + 1e-6))
    whole = [i for i, index in enumerate(target) if tokenizer.decode_target([index]).isalnum()]
    offsets = tokenizer.offsets("the dog sees", source, text, target)[1]
    for i in whole:  # a unit of one subword has its row
        for k, unit in enumerate(units(text)):
            if (offsets[i][0] + (text[offsets[i][0]] == " "), offsets[i][1]) == unit:
                assert weights[k] == pytest.approx(columns[i], abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"type": "bpe"},
        {"type": "char"},
        {"type": "word"},
        {"type": "bpe", "lowercase": True},
        {"type": "bpe", "normalization": "nfkc"},
        {"type": "bpe", "vocab_size": 60, "byte_fallback": False},
    ],
)
def test_offsets_of_subwords(options: dict[str, Any]) -> None:
    tokenizer = translator(**options).tokenizer
    for text in ["the a dog sees things .", "THE 字 dog🙂", "\u00bdx \ufb01 the dog", "  the  dog ", "e\u0301"]:
        (ids,) = tokenizer.encode_source([text])
        offsets, _ = tokenizer.offsets(text, ids, "", [])
        assert len(offsets) == len(ids)
        places = [place for offset in offsets for place in offset]
        assert all(0 <= start <= end <= len(text) for start, end in offsets)
        assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)
        assert max(places, default=0) >= len(text.rstrip()) - 1
        if tokenizer.decode_source(ids) == text:  # each is where its text is
            for i, (start, end) in enumerate(offsets):
                before, upto = (tokenizer.decode_source(ids[:k]) for k in (i, i + 1))
                if "\ufffd" not in before + upto:
                    assert (start, end) == (len(before), len(upto))


def test_a_translation_begins_with_its_prefix_or_continues_a_text() -> None:
    line = json.dumps({"text": "the dog sees", "prefix": "THE A"})
    (begun,) = answers([line], is_json=True)
    assert begun.text.startswith("THE A")
    (continued,) = answers([json.dumps({"text": "the dog sees", "suffix_of": "THE A"})], is_json=True)
    assert "THE A" + continued.text == begun.text
    (both,) = answers([json.dumps({"text": "the dog sees", "suffix_of": "THE ", "prefix": "A"})], is_json=True)
    assert "THE " + both.text == begun.text
    assert both.text.startswith("A")
    marked = {"text": "<b>the dog</b> sees", "suffix_of": "THE A", "markup": True}
    (tagged,) = answers([json.dumps(marked)], is_json=True)
    assert parse_markup(tagged.text).text == continued.text
    plain, _ = answers([json.dumps({"text": "the dog sees"}), line], is_json=True)
    (alone,) = answers(["the dog sees"])
    assert plain.n_best() == alone.n_best()  # whatever else is asked beside it


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", 'input_format=jsonl: a line must be an object with the key "text", as {"text": "Hello!"}'),
        ('{"text": a}', "input_format=jsonl: no JSON: Expecting value at character 10"),
        ("5" * 5000, 'input_format=jsonl: a line must be an object with the key "text", as {"text": "Hello!"}'),
        pytest.param(
            "[" * 100_000,
            'input_format=jsonl: a line must be an object with the key "text", as {"text": "Hello!"}',
            id="deep",
        ),
        ('{"txt": "a"}', 'input_format=jsonl: a line must be an object with the key "text", as {"text": "Hello!"}'),
        ('{"text": "a", "prefxi": "b"}', "input_format=jsonl: unknown key prefxi; did you mean prefix?"),
        ('{"text": 5}', "input_format=jsonl: text must be a text, not 5"),
        ('{"text": "a", "markup": "yes"}', 'input_format=jsonl: markup must be true or false, not "yes"'),
    ],
)
def test_lines_that_are_no_requests(line: str, message: str) -> None:
    wrong, right = answers([line, '{"text": "the dog"}'], is_json=True)
    assert wrong.error == message
    assert right.error is None


def test_half_a_character_in_json_is_replaced() -> None:
    lines = ['{"text": "the \\ud800 dog"}', '{"text": "the dog", "prefix": "\\ud800A"}', '{"text": "the \\ufffd dog"}']
    halved, begun, replaced = answers(lines, is_json=True)
    assert halved.source == "the \ufffd dog"
    assert halved.n_best() == replaced.n_best()
    assert begun.text.startswith("\ufffdA")


def test_a_prefix_that_the_vocabulary_cannot_write() -> None:
    model = LineTranslator(translator(type="word"), 100, is_json=True)
    (result,) = model.translate_lines([b'{"text": "the dog", "prefix": "QUITE"}'])
    assert result.error is not None
    assert result.error.startswith("prefix: the vocabulary writes 'QUITE' as '")


def test_markup_needs_attention() -> None:
    for name in ("markup", "placeholders"):
        with pytest.raises(ValueError, match=f"^{name}=true: the model has no attention to the source"):
            LineTranslator(translator("none"), 100, LineRequest(**{name: True}))
    (result,) = LineTranslator(translator("none"), 100, is_json=True).translate_lines([b'{"text":"a","markup":true}'])
    assert result.error is not None
    assert result.error.startswith("markup=true: the model has no attention")


def test_json_has_the_spans() -> None:
    model = LineTranslator(translator(), 100, LineRequest(markup=True))
    (result,) = model.translate_lines([b"<b>the dog</b> sees"])
    record = model.to_json(1, result)
    (span,) = record["spans"]
    assert record["translation"] == result.text
    assert span["tag"] == "<b>"
    assert (span["source_start"], span["source_end"]) == (0, 7)
    assert f"<b>{html.escape(span['text'], quote=False)}</b>" in result.text
    assert 0 <= span["confidence"] <= 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{name} has %d of %1$s", ["{name}", "%d", "%1$s"]),
        ("100 % of 5 %, 20% off", []),
        ("see https://a.org/b?c=d. or me@x.org, `rm -r x`", ["https://a.org/b?c=d", "me@x.org", "`rm -r x`"]),
        ("${x} {{y}} {0} %(z)s {a b}", ["${x}", "{{y}}", "{0}", "%(z)s"]),
    ],
)
def test_what_a_placeholder_is(text: str, found: list[str]) -> None:
    assert [match[0] for match in PLACEHOLDER.finditer(text)] == found


def test_lost_placeholders() -> None:
    marked = parse_markup("<b>{a}</b> and {b} or {b}")
    assert lost_placeholders(marked, "{b} {a}") == ([Tag("{b}", "", 15, 15)], {})
    assert lost_placeholders(marked, "{b} {b}") == ([Tag("{a}", "", 0, 0, 0)], {})
    assert lost_placeholders(marked, "{b} {aa} {b}") == ([], {"{aa}": "{a}"})
    assert lost_placeholders(marked, "{aa} {b} {b}", "{aa}") == ([Tag("{a}", "", 0, 0, 0)], {})  # the prefix stays
    for source, translation in (
        ("{x}", "${x} {{x}}"),
        ("%s", "%st"),
        ("http://a.b/x", "http://a.b/x/c"),
        ("me@x.org", "time@x.org.de"),
    ):  # a part of another one is none
        lost, garbled = lost_placeholders(MarkedText(source, []), translation, translation)
        assert ([tag.opening for tag in lost], garbled) == ([source], {})


def written(model: LineTranslator, source: str, translation: str, **request: Any) -> LineTranslation:
    """Return the result for a source as if the model had translated it so."""
    tokens = model.translator.tokenizer.encode_target([translation])[0]
    marked = parse_markup(source) if request.get("markup") else MarkedText(source, [])
    best = [[Translation(translation, tokens, 0.0, False)]]
    result = LineTranslation(source, [marked.text], best, None, LineRequest(source, **request))
    return model._with_tags(result, marked)


def test_lost_placeholders_are_put_back() -> None:
    model = LineTranslator(translator(), 100)
    result = written(model, "the {dog} sees <{x}>", "THE CAT SEES & >", placeholders=True)
    assert sorted(result.lost) == ["{dog}", "{x}"]
    assert all(result.text.count(name) == 1 for name in result.lost)
    rest = result.text.replace("{dog}", "").replace("{x}", "")
    assert rest.split() == ["THE", "CAT", "SEES", "&", ">"]
    result = written(model, "the <b>{dog}</b> sees", "THE CAT", placeholders=True, markup=True)
    assert "{dog}" in result.text[result.text.index("<b>") : result.text.index("</b>")]
    assert written(model, "the {dog} sees", "THE {DOGGO} SEES", placeholders=True).text == "THE {dog} SEES"
    assert written(model, "the {dog} sees", "THE {dog} SEES", placeholders=True).lost == []
    for prefix in ("THE CAT", "THE CAT SEES"):  # stays what the translation begins with
        assert written(model, "{dog} sees", "THE CAT SEES", placeholders=True, prefix=prefix).text.startswith(prefix)


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("the dog sees https://x.org/a, but hears.", "THE DOG SEES HEARS"),
        ("write me@x.org.", "WRITE"),
        ("%s, he comes", "HE COMES"),
        ("({n})", "THE 日本"),
        ("the `a`: cat", "THE CAT"),
    ],
)
def test_no_word_touches_a_placeholder_that_is_put_back(source: str, translation: str) -> None:
    model = LineTranslator(translator(), 100)
    result = written(model, source, translation, placeholders=True)
    assert result.lost == [match[0] for match in PLACEHOLDER.finditer(source)]
    assert [match[0] for match in PLACEHOLDER.finditer(result.text)] == result.lost
    before, after = result.text.split(result.lost[0])
    assert not before[-1:].isalnum()
    assert not after[:1].isalnum()


def test_a_placeholder_inside_a_word_stays_there() -> None:
    result = written(LineTranslator(translator(), 100), "a{n}b", "", placeholders=True)
    assert result.text == "{n}"
    for source, shown in (("a{n}b", "{n}"), ("(a{n})", "{n} "), ("({n}b)", " {n}"), ("a {n}.", " {n} ")):
        place = source.index("{")
        assert with_spaces(source, "AB", SpanOf(Tag("{n}", "", place, place), 1, 1, 0.0)).tag.opening == shown


def test_what_a_translation_continues_has_its_terms_and_placeholders() -> None:
    base = translator()
    model = LineTranslator(base, 100, is_json=True, glossary=load_glossary({"dog": "DOG"}, base))
    line = {"text": "the dog sees {x} and {y}", "suffix_of": "THE DOG SEES {x}", "placeholders": True}
    (result,) = model.translate_lines([json.dumps(line).encode()])
    assert [(term.source, term.used) for term in result.terms] == [("dog", True)]
    assert "{x}" not in result.text
    assert result.text.count("{y}") == 1


def test_the_search_is_not_asked_for_a_placeholder_that_the_vocabulary_lacks() -> None:
    base = translator(type="word", vocab_size=100)
    glossary = load_glossary({"dog": "DOG"}, base)
    model = LineTranslator(base, 100, LineRequest(placeholders=True), glossary=glossary)
    (result,) = model.translate_lines([b"the dog sees {name}"])
    assert model._phrases(result) == [["DOG"]]
    assert result.lost == ["{name}"]
    assert [term.used for term in result.terms] == [True]


def test_placeholders_are_required_phrases_beside_a_glossary() -> None:
    model = LineTranslator(translator(), 100, LineRequest(placeholders=True))
    plain = model.translate_lines([b"the {dog} sees %s"])[0]
    glossary = load_glossary({"sees": "CAT"}, model.translator)
    forced = LineTranslator(model.translator, 100, model.defaults, glossary=glossary).translate_lines(
        [b"the {dog} sees %s"]
    )[0]
    assert sorted(plain.lost) == ["%s", "{dog}"]
    assert forced.lost == []
    assert all(text in forced.n_best()[0].text for text in ("%s", "{dog}", "CAT"))


def test_scores_of_spans() -> None:
    def spans(line: str) -> Any:
        marked = parse_markup(line)
        return [SpanOf(tag, tag.start, tag.end, 1.0) for tag in marked.tags]

    human = parse_markup("<a>one two</a> three <b>four</b>, <c></c>")
    assert span_score([(spans("<a>one two</a> three <b>four</b>,"), human)]) == (2, 1.0, 1.0, 0.0)
    # a: one of two units, a boundary is off by one; b: two for one; d and c do not count
    score = span_score([(spans("<a>one</a> <d>two</d> three <b>four,</b> <c></c>"), human)])
    assert score == pytest.approx((2, 0.0, 2 * (1 + 1) / (1 + 2 + 2 + 1), (0.5 + 0.5) / 2))
    assert span_score([]) == (0, 0.0, 0.0, 0.0)
    # of several elements of one name each is compared with its own: with the same attributes, or in their order
    human = parse_markup("<b>one</b> <a x='2'>two</a> <a x='1'>three</a> <b>four</b>")
    found = spans("<b>one</b> <a x='2'>two</a> <a x='1'>three</a> <b>four</b>")
    assert span_score([([found[i] for i in (0, 2, 1, 3)], human)]) == (4, 1.0, 1.0, 0.0)
    assert span_score([(spans("<b>one</b> <a x='1'>two</a> <a x='2'>three</a> <b>four</b>"), human)])[1] == 0.5
    assert span_score([(spans("<b>one</b> two <b>three</b> <b>four</b>"), human)])[:2] == (2, 0.5)


HOSTILE = (
    "{name}",
    "${x}",
    "{{a.b}}",
    "%(n)s",
    "%1$s",
    "`rm -r x`",
    "https://a.org/b?c=d",
    "me@x-y.org",
    "`<b>&`",
    "{日本}",
)


def test_no_tag_and_no_term_is_put_inside_a_placeholder() -> None:
    rng, placed = random.Random(3), 0
    base = translator()
    glossary = load_glossary({"name": "NAME", "org": "ORG", "x": "X", "rm": "RM", "a": "A"}, base)
    model = LineTranslator(base, 100, glossary=glossary)
    for _ in range(150):
        words = [*rng.sample(HOSTILE, 3), *rng.sample(["the", "dog", "sees", "a", "name", "x"], 3)]
        rng.shuffle(words)
        tagged = [html.escape(word, quote=False) for word in words]
        for tag, start in zip("biu", (0, 2, 4), strict=True):
            end = start + rng.randint(0, 1)
            tagged[start] = f"<{tag}>{tagged[start]}"
            tagged[end] += f"</{tag}>"
        place = rng.randrange(6)
        tagged[place] = tagged[place].replace("na", "<br/>na")
        source, translation = " ".join(tagged), " ".join(rng.sample(words, 6))
        translation = translation.replace("{name} ", "{name}", rng.randint(0, 1))
        result = written(model, source, translation, markup=True, placeholders=True)
        again = parse_markup(result.text)
        assert [match[0] for match in PLACEHOLDER.finditer(again.text)] == [
            match[0] for match in PLACEHOLDER.finditer(translation)
        ]
        for match in PLACEHOLDER.finditer(again.text):
            assert not any(match.start() < place < match.end() for tag in again.tags for place in (tag.start, tag.end))
        placed += len(again.tags)
    assert placed > 100
    asked = LineTranslator(base, 100, LineRequest(placeholders=True), glossary=glossary)
    (result,) = asked.translate_lines([b"a {name} or {org} and `rm x` or name"])
    assert [term.source for term in result.terms] == ["a", "name"]
    assert asked._phrases(result) == [["A", "NAME", "{name}", "{org}", "`rm x`"]]
    assert [term.source for term in model.translate_lines([b"a {name}"])[0].terms] == ["a", "name"]


def test_garbled_placeholders_are_put_right_in_their_place() -> None:
    model = LineTranslator(translator(), 100)
    source = '<a href="{dig}">the dog</a> sees {dog} and www.x.org'
    result = written(model, source, "THE {dig} SEES https://x.com/a", markup=True, placeholders=True)
    assert result.text.startswith('<a href="{dig}">')
    assert parse_markup(result.text).text == "THE {dog} SEES www.x.org"
    assert result.lost == ["{dog}", "www.x.org"]
    assert written(model, "the {dog}", "THE {dig} {dig}", placeholders=True).text == "THE {dog} {dig}"
    begun = written(model, "{x} the dog", "THE CATS", placeholders=True, prefix="THE CA")
    assert begun.text.split("{x}")[0].strip(" ") in ("THE CATS",)


LAYERS = [{"layer": 1, "head": 2}, {"layer": 2}, {"head": 0}, {}]


def test_each_line_has_its_language_and_its_layer_and_head() -> None:
    from tests.inference.test_tags import made

    for place in ("source", "decoder"):
        base, data = made(place, beam_size=2)
        model = LineTranslator(base.into(data, "de"), 100, LineRequest(markup=True), is_json=True)
        asked: list[dict[str, Any]] = [{}, {"target_lang": "fr"}, *({"alignment": a} for a in LAYERS)]
        asked += [{"target_lang": "en", "alignment": LAYERS[0]}, {"target_lang": "de"}]
        lines = [json.dumps({"text": "<b>c a</b> b", **one}) for one in asked]
        together = model.translate_lines([line.encode() for line in lines])
        for one, line, result in zip(asked, lines, together, strict=True):
            assert result.error is None
            (alone,) = model.translate_lines([line.encode()])
            assert model.to_json(1, result) == model.to_json(1, alone)
            plain = base.into(data, one.get("target_lang", "de"))
            if "alignment" in one:
                chosen = AlignmentSource(one["alignment"].get("layer", 0), one["alignment"].get("head", 0))
                plain.stored_source = StoredAlignmentSource(chosen)
            other = LineTranslator(plain, 100, LineRequest(markup=True))
            expected = other.to_json(1, other.translate_lines([b"<b>c a</b> b"])[0])
            assert model.to_json(1, result) == expected
        texts = [model.to_json(1, result)["alignment_source_text"] for result in together]
        assert texts[2:4] == ["layer 1, head 2", "layer 2, mean of its heads"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"target_lang": "cs"}, "target_lang=cs: the model translates into de, fr, en"),
        ({"alignment": {"layer": 9}}, "alignment: layer=9: must be 0 (the mean) to "),
        ({"alignment": {"layer": 1, "head": -1}}, "alignment: head=-1: must be 0 (the mean) to "),
        ({"alignment": {"layer": True}}, "alignment: layer=True: must be 0 (the mean) to "),
        ({"alignment": {"head": 1}}, "alignment: head=1: every layer has one; give layer, 1 to "),
        ({"alignment": {"lair": 1}}, 'alignment: must have a layer, and a head where wanted, as in {"layer": 2'),
        ({"alignment": [2, 3]}, "input_format=jsonl: alignment must be an object, as "),
        ({"target_lang": None}, "input_format=jsonl: target_lang must be a text, not null"),
    ],
)
def test_a_language_or_head_that_there_is_not(asked: dict[str, Any], message: str) -> None:
    from tests.inference.test_tags import made

    base, data = made("source")
    model = LineTranslator(base.into(data, "de"), 100, is_json=True)
    wrong, right = model.translate_lines([json.dumps({"text": "a b", **asked}).encode(), b'{"text": "a b"}'])
    assert (wrong.error or "")[: len(message)] == message
    assert right.error is None


def test_terms_are_of_the_language_that_the_glossary_is_of() -> None:
    from tests.inference.test_tags import made

    base, data = made("source")
    german = base.into(data, "de")
    model = LineTranslator(german, 100, is_json=True, glossary=load_glossary({"a": "b c"}, german))
    own, named, other = model.translate_lines(
        [b'{"text": "a b"}', b'{"text": "a b", "target_lang": "de"}', b'{"text": "a b", "target_lang": "fr"}']
    )
    assert own.best == named.best == german.n_best(["a b"], phrases=[["b c"]])
    assert [term.target for term in own.terms] == ["b c"]
    assert other.best == base.into(data, "fr").n_best(["a b"])
    assert not other.terms


def test_the_attention_of_the_other_direction_is_added() -> None:
    both = translator(), translator()
    model = LineTranslator(both[0], 12, LineRequest(markup=True), reverse=both[1])
    text = "the dog sees things. the <b>cat</b> hears things."
    (result,) = model.translate_lines([text.encode()])
    (alone,) = LineTranslator(both[0], 12, LineRequest(markup=True)).translate_lines([text.encode()])
    assert result.best == alone.best
    marked, whole = parse_markup(text), result.n_best()[0].text
    added = model._unit_weights(result, marked, whole)
    forward = LineTranslator(both[0], 12)._unit_weights(alone, marked, whole)
    # of the other direction, as if it had translated back
    back, place, target = np.zeros_like(forward), 0, 0
    for segment, best in zip(result.segments, result.best, strict=True):
        place, target = marked.text.index(segment, place), whole.index(best[0].text.strip(" "), target)
        sources, targets = both[1].encode_pairs([(best[0].text, segment)])
        ((_, weights),) = both[1].attention_weights(sources, targets)
        rows = [i for i, (s, e) in enumerate(units(whole)) if target <= s < target + len(best[0].text.strip(" "))]
        columns = [i for i, (s, e) in enumerate(marked.units()) if place <= s < place + len(segment)]
        ranges = (
            units(best[0].text),
            [(s - place, e - place) for s, e in marked.units()][columns[0] : columns[-1] + 1],
        )
        block = both[1].unit_weights((best[0].text, segment), (sources[0], targets[0]), weights, ranges)
        back[np.ix_(rows, columns)] += block.T
    assert added == pytest.approx(forward + back)
    with pytest.raises(ValueError, match="that of reverse, has no attention"):
        LineTranslator(both[0], 12, LineRequest(markup=True), reverse=translator("none"))
