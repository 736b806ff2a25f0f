"""Any bytes in, as many lines out, in order; and links within the words of the text, for every tokenizer."""

import functools
import io
import json
import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nmt import translate
from nmt.alignment import AlignmentConfig, AlignmentSource, StoredAlignmentSource, read_pharaoh
from nmt.alignment.pharaoh import num_words, pharaoh_line
from nmt.attention import AttentionConfig
from nmt.data import Tokenizer, TokenizerConfig
from nmt.inference.aligner import Aligner
from nmt.inference.line_reader import LineReader
from nmt.inference.line_translator import LineTranslator, json_line
from nmt.inference.translator import Translator
from nmt.models import build_model
from nmt.models.rnn import RNNConfig
from nmt.runtime.text import is_blank
from nmt.search import SearchConfig

TEXT = [f"the {a} {b} sees , hears and likes {c} things ." for a in "abcdef" for b in ("dog", "cat") for c in "xyz"]
# Words, what ends a line somewhere, white space and formats, what normalization splits or removes, and marks of ours.
PIECES = [
    *(
        "the",
        "dog",
        "a",
        "bc",
        " ",
        "  ",
        ". ",
        "字",
        "。",
        "、",
        "dogdogdogdog",
        "é",
        "e\u0301",
        "🙂",
        "👩‍👩‍👧",
        "שלום",
        "ß",
    ),
    *("\t", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\x1b[31m", "\u00a0", "\u2003", "\u3000"),
    *("\u200b", "\u200d", "\ufeff", "\u202e", "\u00ad", "\ufe0f", "\u3164", "\u2800"),
    *("\u00bd", "\u00b4", "\u00a8", "\ufdfa", "\ufb01", "\u1e9e", "\u0130", "\uac00", "\u1100\u1161", "\U000e0001"),
    *("▁", "▅", "<s>", "</s>", "<unk>", "<0x0A>", "|||", "0-0", "\uffff", "\U0010ffff", "\ue000"),
]
LINES = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    # nmt_nfkc leaves nothing of U+FFFD, the only such character that can be seen
    st.text(st.characters(exclude_characters="\n\ufffd", exclude_categories=["Cs"]), max_size=30),
)
RAW_LINES = st.one_of(
    LINES.map(str.encode),
    st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")),
    st.text(st.characters(categories=["Cs", "Lu"]), max_size=4).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.integers(50, 400).map(lambda num: b"x" * num),
)
TOKENIZERS: dict[str, dict[str, Any]] = {
    "identity": {"vocab_size": 311},
    "nfkc": {"vocab_size": 311, "normalization": "nfkc"},
    "nmt_nfkc": {"type": "bpe", "vocab_size": 311, "normalization": "nmt_nfkc"},
    "no bytes": {"type": "bpe", "vocab_size": 60, "byte_fallback": False},
    "lowercase": {"type": "bpe", "vocab_size": 300, "lowercase": True},
    "word": {"type": "word"},
    "char": {"type": "char"},
}


@functools.cache
def translator(kind: str) -> Translator:
    tokenizer = Tokenizer.train(TokenizerConfig(**TOKENIZERS[kind]), [(line, line.upper()) for line in TEXT])
    torch.manual_seed(1)
    config = RNNConfig(embedding_dim=8, hidden_size=8, attention=AttentionConfig(score="scaled", heads=2, dim=8))
    model = build_model(config, tokenizer.source_size, tokenizer.target_size, joint=True).eval()
    search = SearchConfig(beam_size=2, max_length_ratio=0.2, max_length_offset=4, min_length_offset=2)
    carried = StoredAlignmentSource(AlignmentSource(null=False), "hand")
    return Translator(model, tokenizer, search, torch.device("cpu"), carried=carried)


def run_command(content: bytes, *, as_json: bool) -> tuple[bytes, str]:
    """Return the standard output and error of `nmt.translate` for this standard input."""
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=feed)
    thread.start()
    output, errors = io.BytesIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: read, isatty=lambda: False))
        patch.setattr(sys, "stdout", SimpleNamespace(buffer=output, isatty=lambda: False))
        patch.setattr(sys, "stderr", errors)
        translate._translate(LineTranslator(translator("identity"), 24), LineReader(read), as_json, 7)
    thread.join()
    os.close(read)
    return output.getvalue(), errors.getvalue()


@settings(max_examples=20)
@given(st.lists(RAW_LINES, max_size=12), st.booleans(), st.booleans())
@example([b"the dog", b"\xef\xbb\xbfthe dog", b"", b"\r", b"\xed\xa0\x80", b"the dog\r"], True, True)
def test_as_many_lines_out_as_in_and_in_order(lines: list[bytes], has_mark: bool, ends: bool) -> None:
    mark = b"\xef\xbb\xbf" * has_mark
    content = mark + b"\n".join(lines) + b"\n" * (ends and bool(lines))
    read = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    read = read[:-1] if read[-1] == b"" else read
    output, errors = run_command(content, as_json=True)
    records = [json.loads(line) for line in output.decode().splitlines()]
    assert [record["line"] for record in records] == list(range(1, len(read) + 1))
    texts = [line.removesuffix(b"\r").decode("utf-8", "replace") for line in read]
    assert [record["source"] for record in records] == texts
    for record in records:
        assert "error" not in record
        assert not is_blank(record["source"]) or record["translation"] == ""
        check_links(record["links"], record["source"], record["translation"])
    assert ("byte-order mark" in errors) == content.startswith(b"\xef\xbb\xbf")
    plain, _ = run_command(content, as_json=False)
    assert plain.decode().split("\n") == [*(record["translation"] for record in records), ""]


def check_links(links: list[Any], source: str, target: str) -> None:
    assert all(0 <= i < num_words(source) and 0 <= j < num_words(target) for i, j in links)
    assert len({tuple(link) for link in links}) == len(links)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=20)
@given(lines=st.lists(LINES, min_size=1, max_size=8), longest=st.sampled_from([3, 9, 100]))
def test_links_are_within_the_words_of_the_line(kind: str, lines: list[str], longest: int) -> None:
    model = translator(kind)
    line_translator = LineTranslator(model, longest)
    results = line_translator.translate_lines([line.encode() for line in lines])
    for number, (line, result) in enumerate(zip(lines, results, strict=True), 1):
        record = json.loads(json_line(line_translator.to_json(number, result)))
        assert record["source"] == line.removesuffix("\r")
        check_links(record["links"], record["source"], record["translation"])
        # every target word has a link with this alignment source
        if len(result.segments) == 1 and not is_blank(line) and not is_blank(record["translation"]):
            assert {j for _, j in record["links"]} == set(range(num_words(record["translation"])))
    assert line_translator.counts["unknown words"] == 0


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=20)
@given(pairs=st.lists(st.tuples(LINES, LINES), min_size=1, max_size=8))
def test_alignments_are_within_the_words_of_the_pair(
    kind: str, pairs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = translator(kind)
    (aligned,) = Aligner(model, AlignmentConfig(), AlignmentSource(null=False)).align(pairs)
    for pair, texts in zip(aligned, pairs, strict=True):
        assert (pair.source, pair.target) == texts
        check_links(pair.links, *texts)
        if is_blank(pair.source) or is_blank(pair.target):
            assert pair.links == []
        else:
            assert pair.words_match
            assert {j for _, j in pair.links} == {word for word in pair.target_words if word >= 0}
            if "nfkc" not in kind:  # which leave nothing of some words
                assert {j for _, j in pair.links} == set(range(num_words(pair.target)))
                assert pair.matrix.shape == (num_words(pair.target), num_words(pair.source) + 1)
    assert model.links(pairs) == [pair.links for pair in aligned]
    path = tmp_path_factory.mktemp("pharaoh") / "alignments.pharaoh"
    path.write_text("".join(f"{pharaoh_line(pair.links)}\n" for pair in aligned))
    assert read_pharaoh(path, pairs) == [pair.links for pair in aligned]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(line=LINES)
def test_the_words_of_subwords_are_those_of_the_text(kind: str, line: str) -> None:
    """Each word's subwords have the text of that word, normalized by itself."""
    tokenizer = translator(kind).tokenizer
    (ids,) = tokenizer.encode_source([line])
    words = tokenizer.source_words(line, ids)
    assert len(words) == len(ids)
    if max(words, default=-1) < 0:
        assert is_blank(line)
        return
    given_words = [word for word in line.split(" ") if word]
    for number, word in enumerate(given_words):
        own = tokenizer.decode_source([index for index, of in zip(ids, words, strict=True) if of == number])
        alone = tokenizer.decode_source(tokenizer.encode_source([word])[0])
        assert own.replace(" ", "") == alone.replace(" ", ""), (word, number)
