"""Reading lines, splitting those that are too long, and translating anything at all."""

import contextlib
import copy
import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nmt
from nmt import checkpoint, search
from nmt.alignment import AlignmentSource, StoredAlignmentSource
from nmt.attention import AttentionConfig
from nmt.cli.compose import Config, to_dict
from nmt.cli.configs import ServeConfig
from nmt.data import EOS, UNK, Tokenizer, TokenizerConfig
from nmt.inference.line_reader import CHUNK_BYTES, LineReader
from nmt.inference.line_request import LineTranslation
from nmt.inference.line_translator import LineTranslator, json_line
from nmt.inference.sentence_splitter import split_sentence
from nmt.inference.translator import EMPTY_TRANSLATION, Translation, Translator
from nmt.models import build_model
from nmt.models.rnn import RNNConfig
from nmt.models.transformer import TransformerConfig
from nmt.search import Ensemble, SearchConfig, decode
from nmt.serve.models import load_models

CPU = torch.device("cpu")
TEXT = [f"the {a} {b} sees , hears and likes {c} things ." for a in "abcdef" for b in ("dog", "cat") for c in "xyz"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TokenizerConfig(vocab_size=311), [(line, line.upper()) for line in TEXT])


def translator(tokenizer: Tokenizer, *, learned: bool = False, score: str = "scaled", **search: object) -> Translator:
    torch.manual_seed(1)
    attention = AttentionConfig(score=score, heads=2)
    if learned:
        self_attention = AttentionConfig(heads=2)
        config = TransformerConfig(d_model=8, ffn_dim=8, positions="learned", max_positions=22)
        config = dataclasses.replace(
            config, attention=attention, encoder_self_attention=self_attention, decoder_self_attention=self_attention
        )
    else:
        config = RNNConfig(embedding_dim=8, hidden_size=8, attention=dataclasses.replace(attention, dim=8))
    model = build_model(config, tokenizer.source_size, tokenizer.target_size, joint=True).eval()
    chosen = dataclasses.replace(SearchConfig(beam_size=2, max_length_ratio=0.5, max_length_offset=3), **search)
    return Translator(model, tokenizer, chosen, CPU)


@pytest.fixture(scope="module")
def saved(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of models with and without attention, by their score functions."""
    paths = {}
    for score in ("scaled", "none"):
        model = translator(tokenizer, score=score)
        config = RNNConfig(embedding_dim=8, hidden_size=8, attention=AttentionConfig(score=score, heads=2, dim=8))
        stored = to_dict(Config(model=config, search=model.config))
        paths[score] = tmp_path_factory.mktemp("saved") / f"{score}.pt"
        content = {"config": stored, "tokenizer": tokenizer.state_dict(), "model": model.model.state_dict()}
        checkpoint.save(paths[score], content)
    return paths


def run(path: Path, *options: str, text: bytes = b"", closed: str = "") -> "subprocess.CompletedProcess[bytes]":
    """Run the command in a process; `closed` is the shell's redirection that closes a stream."""
    arguments = ["-m", "nmt.translate", f"checkpoint={path}", "device=cpu", "num_threads=1", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    shell = ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, *arguments]
    return subprocess.run(shell, input=text, capture_output=True, cwd=path.parent, env=environment, check=False)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_lines_are_complete_and_in_order(pipe: tuple[int, int]) -> None:
    read, write = pipe
    rng = random.Random(0)
    content = [bytes(rng.choice(b"ab \r\x00\xff") for _ in range(rng.randrange(30))) for _ in range(3000)]

    def feed() -> None:
        data = b"\n".join(content)
        while data:
            size = rng.randrange(1, 5000)
            os.write(write, data[:size])
            data = data[size:]
        os.close(write)

    thread = threading.Thread(target=feed)
    thread.start()
    lines, received = LineReader(read), []
    while block := lines.read_batch(100):
        assert len(block) <= 100
        received += block
    thread.join()
    assert received == (content if content[-1] else content[:-1])


def test_lines_are_returned_when_the_input_pauses(pipe: tuple[int, int]) -> None:
    read, write = pipe
    lines = LineReader(read)
    os.write(write, b"one\ntwo\nhalf a li")
    assert lines.read_batch(1000) == [b"one", b"two"]  # waiting for more would block forever
    os.write(write, b"ne\n")
    assert lines.read_batch(1000) == [b"half a line"]
    os.close(write)
    assert lines.read_batch(1000) == []


def test_a_line_without_end_does_not_fill_the_memory(pipe: tuple[int, int]) -> None:
    read, write = pipe

    def feed() -> None:
        os.write(write, b"x" * 11 + b"\n" + b"y" * 10 + b"\n")
        for _ in range(300):
            os.write(write, b"z" * 1000)
        os.close(write)

    thread = threading.Thread(target=feed)
    thread.start()
    lines, received = LineReader(read, max_line_bytes=10), []
    while block := lines.read_batch(5):
        received += block
        assert len(lines._partial or b"") <= 10
    thread.join()
    assert received == [None, b"y" * 10, None]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_a_byte_order_mark_is_removed_at_the_start_only(pipe: tuple[int, int], size: int) -> None:
    mark = "\ufeff".encode()
    for content, lines in (
        (mark + b"a\n" + mark + b"b", [b"a", mark + b"b"]),
        (mark, []),
        (mark + b"\n", [b""]),
        (mark[:2], [mark[:2]]),
        (mark[:1] + b"\nb\n", [mark[:1], b"b"]),
        (b"", []),
    ):
        read, write = os.pipe()

        def feed(content: bytes = content, write: int = write) -> None:
            for start in range(0, len(content), size):
                os.write(write, content[start : start + size])
                time.sleep(0.002)
            os.close(write)

        thread = threading.Thread(target=feed)
        thread.start()
        reader, received = LineReader(read), []
        while block := reader.read_batch(100):
            received += block
        thread.join()
        os.close(read)
        assert received == lines
        assert reader.had_byte_order_mark == content.startswith(mark)


def test_lines_that_only_look_blank_are_not_translated(
    tokenizer: Tokenizer, saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = ["", " ", "\t", "\u00a0", "\u200b", "\u3000", "\ufe0f", "\t" * 100, "\u2028", "\0", "\r"]
    model = translator(tokenizer, n_best=2)
    (expected,) = model.n_best(["a\u200d dog\u3000"])
    decode, received = search.decode, []

    def record(model: Any, sources: list[list[int]], *arguments: Any, **options: Any) -> Any:
        received.extend(sources)
        return decode(model, sources, *arguments, **options)

    monkeypatch.setattr(search, "decode", record)
    lines = LineTranslator(model, 20)
    results = lines.translate_lines([line.encode() for line in [*blank, "a\u200d dog\u3000"]])
    assert received == tokenizer.encode_source(["a\u200d dog\u3000"])
    assert results[-1].best == [expected]
    empty = lines.to_json(1, results[0])
    for number, (line, result) in enumerate(zip(blank, results, strict=False), 1):
        source = line.removesuffix("\r")
        assert lines.to_json(number, result) == {**empty, "line": number, "source": source}
        assert [*model.stream_n_best(line)] == [[EMPTY_TRANSLATION]]
    assert empty["translation"] == ""
    assert empty["links"] == empty["source_subwords"] == []
    assert lines.counts == {"split": 0, "truncated": results[-1].best[0][0].truncated, "unknown words": 0}
    # from a part of a line, too
    long = "a dog" + "\u200b" * 60 + "the cat"
    (parts,) = lines.translate_lines([long.encode()])
    assert "".join(parts.segments) == long
    assert [EMPTY_TRANSLATION] in parts.best
    # by the command: the mark is removed and counted
    monkeypatch.undo()
    done = run(saved["scaled"], text=("\ufeffa dog\n" + "\n".join(blank) + "\na dog\n").encode())
    first, *middle, last, end = done.stdout.decode().split("\n")
    assert (first, middle, end) == (last, [""] * len(blank), "")
    assert first == translator(tokenizer).translate(["a dog"])[0].text
    assert "1 byte-order mark at the start was removed" in done.stderr.decode()


@pytest.mark.parametrize("normalization", ["nfkc", "nmt_nfkc"])
def test_links_count_the_words_of_the_line_as_given(normalization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TokenizerConfig(vocab_size=311, normalization=normalization)
    model = translator(Tokenizer.train(options, [(line, line.upper()) for line in TEXT]), max_length_offset=8)
    model.stored_source = StoredAlignmentSource(AlignmentSource(null=False), "hand")
    line = "the dog\u00a0sees \u200b \u00bd things\u3000. a l\u00b4a cat"
    words = {number for number, word in enumerate(line.split(" ")) if word != "\u200b"}
    for longest in (100, 9):
        lines = LineTranslator(model, longest)
        (result,) = lines.translate_lines([line.encode()])
        assert (len(result.segments) > 1) == (longest == 9)
        record = lines.to_json(1, result)
        assert record["links"]
        assert {s for s, _ in record["links"]} <= words | {2}
        with monkeypatch.context() as patch:  # as if each subword were linked to each
            patch.setattr(
                AlignmentSource, "links", lambda _, weights, t, s: [(i, j) for i in s for j in t if min(i, j) >= 0]
            )
            assert {s for s, _ in lines.to_json(1, result)["links"]} | {2} == words | {2}
        assert lines.counts["unknown words"] == 0


def test_lines_whose_words_the_tokenizer_does_not_keep_apart_have_no_links() -> None:
    model = translator(Tokenizer.train(TokenizerConfig(type="char"), [("abcd", "efgh")]))
    model.stored_source = StoredAlignmentSource(AlignmentSource(null=False), "hand")
    lines = LineTranslator(model, 100)
    results = lines.translate_lines([b"abc", b"ab cde. bb", b"  "])
    records = [lines.to_json(number, result) for number, result in enumerate(results)]
    assert [bool(record["links"]) for record in records] == [True, False, False]
    assert [bool(record["subword_links"]) for record in records] == [True, True, False]
    assert lines.counts["unknown words"] == 1


def test_lines_longer_than_a_chunk_do_not_end_the_input(tokenizer: Tokenizer, saved: dict[str, Path]) -> None:
    huge = b"x" * (3 * CHUNK_BYTES)  # longer than any chunk
    done = run(saved["scaled"], text=b"the dog\n" + huge + b"\n" + huge + b"\nthe cat\n\na dog")
    assert done.returncode == 0
    assert done.stderr.startswith(b"line 2: not translated: longer than a line may be\nline 3: not translated: ")
    first, second, third = (t.text for t in translator(tokenizer).translate(["the dog", "the cat", "a dog"]))
    assert done.stdout.decode().split("\n") == [first, "", "", second, "", third, ""]


@pytest.mark.parametrize(("closed", "name"), [("<&-", "input"), (">&-", "output")])
def test_a_closed_stream_is_an_error(saved: dict[str, Path], closed: str, name: str) -> None:
    done = run(saved["scaled"], closed=closed)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"error: standard {name} is closed; open both, as in < source.txt > target.txt\n"


def test_options_that_the_model_does_not_support_are_one_error(tokenizer: Tokenizer, saved: dict[str, Path]) -> None:
    """The error comes before any line is read; an ensemble needs one model with attention."""
    message = "search.coverage_penalty=0.2: the model has no attention; set it to 0"
    done = run(saved["none"], "search.coverage_penalty=0.2", text=b"a dog\nthe cat\n")
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", f"error: {message}\n")
    config = ServeConfig(checkpoint=str(saved["none"]), device="cpu", search=SearchConfig(coverage_penalty=0.2))
    with pytest.raises(ValueError, match=message):
        load_models(config, ["search.coverage_penalty=0.2"])
    for method in ("beam", "sample", "mbr"):
        with pytest.raises(ValueError, match=message):
            translator(tokenizer, score="none", coverage_penalty=0.2, method=method)
    contents = {score: checkpoint.load(path) for score, path in saved.items()}
    config = SearchConfig(beam_size=2, max_length_offset=3, coverage_penalty=0.2)
    both = Translator.from_checkpoints([contents["none"], contents["scaled"]], config, CPU)
    assert (both.member, len(both.translate(["a dog"]))) == (2, 1)
    with pytest.raises(ValueError, match=message):
        Translator.from_checkpoints([contents["none"]] * 2, config, CPU)


@pytest.mark.parametrize("seed", range(10))
def test_segments_are_the_text_and_short_enough(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice(["a", "bc ", " ", ". ", "? ", ", ", "。", "、", "字", "\t", "!"]) for _ in range(400))
    for longest in (1, 5, 23, 1000):
        parts = split_sentence(text, len, longest)
        assert "".join(parts) == text
        assert all(0 < len(part) <= longest for part in parts)


def test_texts_are_split_where_it_does_least_harm() -> None:
    assert split_sentence("One two. Three four! Five", len, 16) == ["One two. ", "Three four! Five"]
    assert split_sentence("One two. Three four, five six seven.", len, 16) == [
        "One two. ",
        "Three four, ",
        "five six seven.",
    ]
    assert split_sentence("one two three four", len, 9) == ["one two ", "three ", "four"]
    assert split_sentence("字字。字字、字。", len, 5) == ["字字。", "字字、字。"]
    assert split_sentence("3.14 is 3.14", len, 100) == ["3.14 is 3.14"]
    assert split_sentence("aaaaaaaa", len, 3) == ["aa", "aa", "aa", "aa"]


@pytest.mark.parametrize("learned", [False, True])
def test_a_long_line_is_translated_in_parts(tokenizer: Tokenizer, learned: bool) -> None:
    model = translator(tokenizer, learned=learned, n_best=2)
    line = " ".join(TEXT[:5])
    answers = LineTranslator(model, 20)
    (answer,) = answers.translate_lines([line.encode()])
    assert len(answer.segments) > 3
    assert answers.counts["split"] == 1
    assert all(len(tokenizer.encode_source([part])[0]) <= 20 for part in answer.segments)
    alone = model.n_best(answer.segments)
    assert answer.best == alone
    best = answer.n_best()[0]
    assert best.log_prob == pytest.approx(sum(n_best[0].log_prob for n_best in alone))
    record = answers.to_json(1, answer)
    assert record["parts"] == len(answer.segments)
    num_source, num_target = len(record["source_subwords"]), len(record["target_subwords"])
    assert num_source == sum(len(ids) for ids in tokenizer.encode_source(answer.segments))
    assert all(0 <= s < num_source and 0 <= t < num_target for s, t in record["subword_links"])
    assert all(0 <= s < len(line.split()) for s, _ in record["links"])
    assert [t for _, t in record["subword_links"]] == sorted({t for _, t in record["subword_links"]})
    if learned:
        with pytest.raises(ValueError, match="max_positions=22"):
            model.translate([line])


@pytest.mark.parametrize(
    ("parts", "texts", "whole"),
    [
        (
            ["今日は雨。", "明日は晴れ。"],
            ["It rains today.", "Tomorrow is sunny."],
            "It rains today. Tomorrow is sunny.",
        ),
        (["「雨。」", "雪、", "風"], ["Rain", "snow", "wind"], "Rain snow wind"),
        (["One. ", "Two,\t", "three ", "four"], ["Eins.", "Zwei,", "drei", "vier"], "Eins. Zwei, drei vier"),
        (["xxxx", "xx.x", "xx"], ["aa", "b.b", "cc"], "aab.bcc"),
        (["a  ", "   ", "b"], ["A", "", "B"], "A B"),
        (["雨雨", "雨。", "雪"], ["", "Rain ", ""], "Rain"),
    ],
)
def test_translations_of_parts_are_joined(parts: list[str], texts: list[str], whole: str) -> None:
    assert (
        LineTranslation("", parts, [[Translation(text, [7], -1.0, False)] for text in texts]).n_best()[0].text == whole
    )


@pytest.mark.parametrize("seed", range(10))
def test_links_stay_inside_both_texts_wherever_a_line_is_split(
    tokenizer: Tokenizer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All words of both sides have links, and nothing else has, if the words of each part are linked completely."""
    model = translator(tokenizer, max_length_offset=4)

    def all_links(
        _: AlignmentSource, weights: Any, target_words: list[int], source_words: list[int]
    ) -> list[tuple[int, int]]:
        sources, targets = ({word for word in side if word >= 0} for side in (source_words, target_words))
        return [(s, t) for s in sources for t in targets]

    rng, num_split = random.Random(seed), 0
    kinds = ["a", "bc ", " ", ". ", "字", "字。", "、", "\t", "   ", "\u00a0", "dogdogdogdog", "é"]
    lines = ["".join(rng.choices(kinds, k=rng.randrange(1, 60))) for _ in range(20)]
    for longest in (3, 9, 24):
        answers = LineTranslator(model, longest)
        for line, answer in zip(lines, answers.translate_lines([line.encode() for line in lines]), strict=True):
            num_split += len(answer.segments) > 1
            record = answers.to_json(1, answer)
            words = [len([word for word in record[side].split(" ") if word]) for side in ("source", "translation")]
            assert all(0 <= s < words[0] and 0 <= t < words[1] for s, t in record["links"]), line
            assert len({tuple(link) for link in record["links"]}) == len(record["links"])
            with monkeypatch.context() as patch:
                patch.setattr(AlignmentSource, "links", all_links)
                links = answers.to_json(1, answer)["links"]
            assert {t for _, t in links} <= set(range(words[1]))
            if all(best[0].text.strip(" ") for best in answer.best):
                assert {s for s, _ in links} == set(range(words[0])), line
                assert {t for _, t in links} == set(range(words[1])), line
    assert num_split > 20


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"length_penalty": 0.0},
        {"length_penalty": 0.6, "length_normalization": "gnmt", "coverage_penalty": 0.3},
        {"method": "sample"},
        {"method": "mbr", "mbr_samples": 12},
    ],
)
def test_scores_of_lines_in_parts(tokenizer: Tokenizer, search: dict[str, Any]) -> None:
    """They are means of the scores of the parts, and the best comes first."""
    model = translator(tokenizer, **{"beam_size": 4, "n_best": 4, "max_length_ratio": 1.0, **search})
    line = " ".join(TEXT[:6]).replace("things .", "things.") + " " * 60 + "the cat"
    answers = LineTranslator(model, 20)
    (answer,) = answers.translate_lines([line.encode()])
    assert len(answer.segments) > 4
    ranked, scores = (
        answer.n_best(),
        np.array([[t.score for t in best] for best in answer.best if best != [EMPTY_TRANSLATION]]),
    )
    assert len(ranked) == 4
    joined_scores = [t.score for t in ranked]
    assert joined_scores == sorted(joined_scores, reverse=True)
    assert [item["score"] for item in answers.to_json(1, answer)["n_best"]] == joined_scores
    nums = [len(best[0].tokens) + 1 for best in answer.best if best != [EMPTY_TRANSLATION]]
    np.testing.assert_allclose(joined_scores, np.average(scores, axis=0, weights=nums))
    if not search:
        assert joined_scores[0] == pytest.approx(ranked[0].log_prob / sum(nums))
    if search.get("method") == "mbr":
        assert all(0 <= score <= 100 for score in joined_scores)


def test_json_records(tokenizer: Tokenizer) -> None:
    model = translator(tokenizer, n_best=2)
    answers = LineTranslator(model, 100)
    good, blank, bad = answers.translate_lines([TEXT[0].encode(), b"  ", None])
    record = json.loads(json_line(answers.to_json(7, good)))
    assert list(record) == [
        *("line", "source", "translation", "score", "log_prob", "truncated", "parts", "n_best"),
        *("source_subwords", "target_subwords", "links", "subword_links", "alignment_source_text"),
    ]
    (ranked,) = model.n_best([TEXT[0]])
    assert record["line"] == 7
    assert [item["text"] for item in record["n_best"]] == [t.text for t in ranked]
    assert (record["translation"], record["score"]) == (ranked[0].text, ranked[0].score)
    source = tokenizer.encode_source([TEXT[0]])[0]
    ((_, weights),) = model.attention_weights([source], [ranked[0].tokens])
    words = tokenizer.target_word_ids([*ranked[0].tokens, EOS]), tokenizer.source_word_ids([*source, EOS])
    assert record["links"] == [list(link) for link in model.stored_source.source.links(weights, *words)]
    assert record["alignment_source_text"] == "mean of all layers and heads"
    assert answers.to_json(8, blank)["translation"] == ""
    assert "longer than a line may be" in answers.to_json(9, bad)["error"]
    plain = LineTranslator(translator(tokenizer, score="none"), 100)
    (answer,) = plain.translate_lines([b"a dog"])
    assert plain.to_json(1, answer)["links"] is plain.to_json(1, answer)["alignment_source_text"] is None
    assert json_line({"a": "x\u2028y\x85z\n\u2029"}).splitlines() == ['{"a": "x\\u2028y\\u0085z\\n\\u2029"}']


@pytest.mark.parametrize("shift", [0, 1])
def test_links_come_from_the_stored_alignment_source(tokenizer: Tokenizer, shift: int) -> None:
    model = translator(tokenizer, learned=True, max_length_offset=8)
    answers, seen = LineTranslator(model, 100), set()
    (answer,) = answers.translate_lines([b"the dog sees"])
    source, target = tokenizer.encode_source(["the dog sees"])[0], answer.n_best()[0].tokens
    assert len(target) > 2
    ((_, weights),) = model.attention_weights([source], [target])
    words = tokenizer.target_word_ids([*target, EOS]), tokenizer.source_word_ids([*source, EOS])
    for head in (1, 2):
        reading = AlignmentSource(2, head, shift, null=False)
        model.stored_source = StoredAlignmentSource(reading, "hand")
        record = answers.to_json(1, answer)
        assert record["alignment_source_text"] == str(reading)
        rows = weights[1, head - 1, shift:]
        best = [[int(rows[t, : len(source)].argmax()), t] for t in range(len(target))]
        assert record["subword_links"] == best
        assert record["links"] == [list(link) for link in reading.links(weights, *words)]
        seen.add(str(best))
    assert len(seen) == 2
    reading = AlignmentSource(2, 1, threshold=0.02)
    model.stored_source = StoredAlignmentSource(reading, "hand")
    links = answers.to_json(1, answer)["links"]
    assert links == [list(link) for link in reading.links(weights, *words)]
    assert len(links) > max(words[0]) + 1


def test_a_line_that_fails_does_not_affect_others(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = translator(tokenizer)
    expected = model.translate(["a dog", "the cat"])
    real = model.n_best

    def fragile(texts: list[str], **options: Any) -> list[list[Translation]]:
        if "bomb" in texts:
            raise RuntimeError("not enough memory:\n you tried to allocate 4 GB")
        return real(texts, **options)

    monkeypatch.setattr(model, "n_best", fragile)
    first, second, third = LineTranslator(model, 100).translate_lines([b"a dog", b"bomb", b"the cat"])
    assert [first.best, third.best] == [[[t]] for t in expected]
    assert second.error == "not translated: not enough memory: you tried to allocate 4 GB"
    assert second.n_best() == [EMPTY_TRANSLATION]


def hostile(rng: random.Random) -> bytes:
    kinds = [
        lambda: b"",
        lambda: b" " * rng.randrange(5),
        lambda: bytes(rng.randrange(256) for _ in range(rng.randrange(20))).replace(b"\n", b""),
        lambda: bytes(rng.randrange(32) for _ in range(rng.randrange(12))).replace(b"\n", b"\r"),
        lambda: "\u202eשלום\u2066 \u200f".encode(),
        lambda: ("\U0001f468\u200d\U0001f469\u0301" * rng.randrange(4)).encode(),
        lambda: b"\xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80",
        lambda: "▁▁ <s> </s> <pad> <0x0A> \u2028 \x85".encode(),
        lambda: b"the dog " * rng.randrange(60),
        lambda: b"x" * rng.randrange(200),
        lambda: b"{\"source\": [1, 99999999, -1]}",
        lambda: b"\x00" * rng.randrange(4),
    ]  # fmt: skip
    return rng.choice(kinds)()


def check_hostile(model: Translator, num: int, seed: int) -> None:
    rng = random.Random(seed)
    lines = [hostile(rng) for _ in range(num)]
    answers = LineTranslator(model, 24)
    results = [answer for start in range(0, num, 500) for answer in answers.translate_lines(lines[start : start + 500])]
    assert len(results) == num
    for number, (line, answer) in enumerate(zip(lines, results, strict=True)):
        assert answer.error is None, line
        assert answer.source == line.removesuffix(b"\r").decode("utf-8", errors="replace")
        text = answer.n_best()[0].text
        assert "\n" not in text
        text.encode("utf-8")
        if not line.removesuffix(b"\r").strip(b" "):
            assert text == ""
        if number % 50 == 0:
            assert json.loads(json_line(answers.to_json(number, answer)))["translation"] == text
    sample = rng.sample(range(num), 20)
    alone = [LineTranslator(model, 24).translate_lines([lines[i]])[0] for i in sample]
    assert [answer.best for answer in alone] == [results[i].best for i in sample]


def test_hostile_lines(tokenizer: Tokenizer) -> None:
    check_hostile(translator(tokenizer), 1000, 0)
    check_hostile(translator(tokenizer, learned=True), 200, 1)


@pytest.mark.slow
def test_many_hostile_lines(tokenizer: Tokenizer) -> None:
    check_hostile(translator(tokenizer, beam_size=1), 100_000, 2)


SEARCHES = [
    {"method": "beam"},
    {"method": "beam", "beam_size": 6, "diverse_groups": 3},
    {"method": "sample"},
    {"method": "mbr", "mbr_samples": 12},
]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("num_models", [1, 2])
def test_n_best_lists_have_no_text_twice(tokenizer: Tokenizer, search: dict[str, Any], num_models: int) -> None:
    """Many ids decode to U+FFFD here: most of the vocabulary are bytes, which an untrained model puts anywhere."""
    limits = {
        "beam_size": 6,
        "n_best": 6,
        "max_length_ratio": 0.0,
        "max_length_offset": 8,
        "temperature": 0.5,
        **search,
    }
    base = translator(tokenizer, **limits)
    for parameter in base.model.parameters():
        parameter.data.mul_(2)
    num_filled = 0
    for seed in range(6):
        models = [copy.deepcopy(base.model) for _ in range(num_models)]
        for model in models:
            torch.manual_seed(seed)
            model.output.bias.data.normal_()
            model.output.bias.data[200:260] += 2
            model.output.bias.data[EOS] += 5
        model = Translator(Ensemble(models) if num_models > 1 else models[0], tokenizer, base.config, CPU)
        streamed = list(model.stream_n_best(TEXT[0]))[-1]
        for translations in [*model.n_best(TEXT[:4]), streamed, *model.n_best(TEXT[:2], prefixes=["THE", ""])]:
            assert 1 <= len({t.text for t in translations}) == len(translations) <= 6
            scores = [t.score for t in translations]
            assert scores == sorted(scores, reverse=True)
            if search["method"] == "beam":
                assert all(t.text == tokenizer.decode_target(t.tokens) for t in translations)
        if search["method"] == "beam":  # others take the places of those with equal texts
            found = model.n_best(TEXT[:4])
            for index, hypotheses in decode(model.model, tokenizer.encode_source(TEXT[:4]), base.config, CPU):
                num_filled += len(found[index]) - len({tokenizer.decode_target(h.tokens) for h in hypotheses})
    assert num_filled > 0 or search["method"] != "beam"


def test_joined_parts_have_no_text_twice() -> None:
    parts = [
        [Translation(text, [7], score, False) for score, text in pair]
        for pair in ([(-1.0, "a b"), (-2.0, "a")], [(-1.0, "c"), (-2.0, "b c")])
    ]
    joined = LineTranslation("x. y", ["x. ", "y"], parts).n_best()
    assert [t.text for t in joined] == ["a b c"]


UNKNOWN_TEXT = [("der hund sieht", "the dog sees"), ("die katze hört gern", "the cat likes to hear")] * 8


@pytest.mark.parametrize("method", ["beam", "mbr"])
@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
def test_unknown_tokens_are_replaced_by_the_source_words_they_attend_to(kind: str, method: str) -> None:
    """The copies are those that the weights of all heads, computed on their own, give."""
    options = {"vocab_size": 40} if kind == "bpe" else {}
    tokenizer = Tokenizer.train(TokenizerConfig(type=kind, byte_fallback=False, **options), UNKNOWN_TEXT)
    limits = {"beam_size": 4, "n_best": 3, "max_length_ratio": 1.0, "method": method, "mbr_samples": 6}
    none, copying, forbidding = (
        translator(tokenizer, **limits, replace_unknown=choice) for choice in ("none", "copy", "forbid")
    )
    for model in (none, copying, forbidding):
        for parameter in model.model.parameters():
            parameter.data.mul_(2)
        model.model.output.bias.data[UNK] += 3
    texts = ["der Otter  sieht  漢", "Q katze", "Ω"]
    num_copies = 0
    for text, plain, copied, others in zip(texts, *(m.n_best(texts) for m in (none, copying, forbidding)), strict=True):
        assert not any(UNK in t.tokens for t in others)
        assert not any("<unk>" in t.text for t in copied)
        assert len({t.text for t in copied}) == len(copied)
        (source,) = tokenizer.encode_source([text])
        words = list(text) if kind == "char" else text.split()
        owners = range(len(source)) if kind == "char" else tokenizer.source_word_ids(source)
        by_tokens = {tuple(t.tokens): t for t in copied}
        assert tuple(plain[0].tokens) in by_tokens or method == "mbr"
        for translation in copied:
            ((_, weights),) = none.attention_weights([source], [translation.tokens])
            expected = tokenizer.decode_target(translation.tokens)
            for position, token in enumerate(translation.tokens):
                if token == UNK:
                    mean = weights.mean((0, 1))[position, : len(source)]
                    best = max((n for n, o in enumerate(owners) if words[o].strip()), key=lambda n: mean[n])
                    expected = expected.replace("<unk>", words[owners[best]], 1)
                    num_copies += 1
            assert translation.text == expected
    assert num_copies > 3
    with pytest.raises(
        ValueError, match=r"search\.replace_unknown=copy: the model has no attention; set it to none or"
    ):
        translator(tokenizer, score="none", replace_unknown="copy")


def test_mbr_and_prefixes_and_streams(tokenizer: Tokenizer) -> None:
    model = translator(tokenizer, method="mbr", mbr_samples=8, n_best=3)
    (translations,) = model.n_best(["the dog"])
    assert [t.score for t in translations] == sorted((t.score for t in translations), reverse=True)
    assert len({t.text for t in translations}) == len(translations) <= 3
    assert all(0 <= t.score <= 100 for t in translations)
    beam = translator(tokenizer, max_length_offset=8)
    (begun,) = beam.n_best(["the dog"], prefixes=["THE C"])
    assert begun[0].text.startswith("THE C")
    assert beam.n_best([" "], prefixes=["A"])[0][0].text.startswith("A")
    for text in ("the dog sees", ""):
        *_, (last,) = beam.stream_n_best(text)
        assert last == beam.translate([text])[0]
    *partial, (last,) = beam.stream_n_best("the dog sees things .", prefix="THE")
    assert len(partial) >= len(last.tokens)
    assert all(t.text.startswith("THE"[: len(t.text)]) for (t,) in partial)


def test_an_ensemble_from_files_needs_one_vocabulary(tokenizer: Tokenizer, tmp_path: Path) -> None:
    single = translator(tokenizer)
    other_tokenizer = Tokenizer.train(TokenizerConfig(vocab_size=308), [(line.upper(), line) for line in TEXT])
    contents = []
    for name, vocabulary in (("a", tokenizer), ("b", tokenizer), ("c", other_tokenizer)):
        config = RNNConfig(embedding_dim=8, hidden_size=8, attention=AttentionConfig(heads=2, dim=8))
        torch.manual_seed(1)
        model = build_model(config, vocabulary.source_size, vocabulary.target_size, joint=True)
        stored = {"model": dataclasses.asdict(config), "search": {}}
        checkpoint.save(
            tmp_path / name, {"config": stored, "tokenizer": vocabulary.state_dict(), "model": model.state_dict()}
        )
        contents.append(checkpoint.load(tmp_path / name))
    both = Translator.from_checkpoints(contents[:2], single.config, CPU)
    lines = TEXT[:6]
    assert [t.text for t in both.translate(lines)] == [t.text for t in single.translate(lines)]
    with pytest.raises(ValueError, match="number 3 of the list has another vocabulary"):
        Translator.from_checkpoints(contents, single.config, CPU)


def test_reading_does_not_wait_while_a_pipe_is_full(pipe: tuple[int, int]) -> None:
    """Available lines are returned together, as many as requested."""
    read, write = pipe
    os.write(write, b"a\n" * 2000)
    lines = LineReader(read)
    begin = time.monotonic()
    assert [len(lines.read_batch(900)) for _ in range(3)] == [900, 900, 200]
    assert time.monotonic() - begin < 60
