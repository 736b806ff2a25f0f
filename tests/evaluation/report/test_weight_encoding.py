import base64
import json
import re
import zlib

import numpy as np
import pytest

from nmt.evaluation.report import ReportSentence, SentenceBrowser
from nmt.evaluation.report import sentence_browser as browser_module
from nmt.evaluation.report.weight_encoding import LEVELS, MAX_QUANTIZATION_ERROR, AttentionPacker


def weights(seed, shape=(2, 3, 7, 5)):
    logits = np.random.default_rng(seed).normal(scale=3, size=shape)
    decoded = np.exp(logits)
    return decoded / decoded.sum(-1, keepdims=True)


def unpacked(line, shape):
    levels = np.frombuffer(zlib.decompress(base64.b64decode(line)), np.uint8).astype(np.float64)
    return np.square(levels / (LEVELS - 1)).reshape(shape)


def test_rounded_weights_are_within_the_stated_error():
    every = np.random.default_rng(1).permutation(np.linspace(0, 1, 100_001)).reshape(1, 1, 1, -1)
    packer = AttentionPacker()
    packer.add(every)
    packed = packer.pack()
    assert packed.num_full == 1
    decoded = unpacked(packed.lines[0], every.shape)
    error = np.abs(decoded - every)
    assert error.max() == pytest.approx(MAX_QUANTIZATION_ERROR, rel=0.01)
    assert error.max() <= MAX_QUANTIZATION_ERROR
    assert error[every < 0.1].max() < 0.4 * MAX_QUANTIZATION_ERROR
    assert decoded[every == 0].tolist() + decoded[every == 1].tolist() == [0, 1]


def test_what_fits_is_whole():
    packer = AttentionPacker(2, 3)
    for seed in range(4):
        packer.add(weights(seed))
    packer.add(None)
    packed = packer.pack()
    assert (packed.num_full, packed.num_one) == (5, 0)
    assert packed.lines[4] == ""
    for seed in range(4):
        decoded = unpacked(packed.lines[seed], (2, 3, 7, 5))
        assert np.abs(decoded - weights(seed)).max() <= MAX_QUANTIZATION_ERROR


@pytest.mark.parametrize("limit", [30_000, 22_000, 16_000, 9_000, 3_000, 1_000, 300, 0])
def test_less_room_makes_fewer_matrices(limit):
    packer, shape = AttentionPacker(1, 0), (2, 3, 20, 20)
    for seed in range(12):
        packer.add(weights(seed, shape))
    packed = packer.pack(limit)
    assert sum(len(base64.b64decode(line)) for line in packed.lines) <= limit
    assert len(packed.lines) == 12
    assert [bool(line) for line in packed.lines] == [i < packed.num_full + packed.num_one for i in range(12)]
    assert packed.num_full == 0 or packed.num_full + packed.num_one == 12
    for seed in range(packed.num_full):
        assert np.abs(unpacked(packed.lines[seed], shape) - weights(seed, shape)).max() <= MAX_QUANTIZATION_ERROR
    for seed in range(packed.num_full, packed.num_full + packed.num_one):
        one = weights(seed, shape)[0].mean(0)
        assert np.abs(unpacked(packed.lines[seed], (20, 20)) - one).max() <= MAX_QUANTIZATION_ERROR


def test_the_room_is_used_in_all_ways():
    packer = AttentionPacker(1, 0)
    for seed in range(12):
        packer.add(weights(seed, (2, 3, 20, 20)))
    sizes = {packer.pack(limit)[1:] for limit in range(0, 60_000, 500)}
    assert {0, 12} < {num_full for num_full, _ in sizes}
    assert {0, 12} < {num_one for _, num_one in sizes}


def texts(rendered):
    return json.loads(re.search(r'id="texts">(.*?)</script>', rendered, re.DOTALL)[1])


def sentence(pieces=("a", "</s>")):
    return ReportSentence("a", "b", "c", {"chrF": 50.12346}, pieces, ("c", "</s>"), (0, -1), (0, -1), [(0, 0)])


def test_the_page_says_what_it_holds_of_the_attention():
    browser = SentenceBrowser(1, 2, 1, "layer 1, head 2")
    for seed in range(9):
        browser.add(sentence(), weights(seed, (2, 2, 2, 2)))
    whole = browser.render()
    assert "All 9 sentences. Each with its 4 matrices (2 layers × 2 heads); weights are rounded to 64 levels" in whole
    content = texts(whole)
    assert (content["layer"], content["head"], content["shift"], content["full"], content["one"]) == (1, 2, 1, 9, 0)
    assert content["sentences"][0]["v"] == [50.1235]
    part = browser.render(max_bytes=150)
    decoded = texts(part)
    assert 0 < decoded["full"] < 9
    assert f"The first {decoded['full']} with their 4 matrices (2 layers × 2 heads), the next {decoded['one']}" in part
    assert "with one (layer 1, head 2), to keep the page small; alignments.npz holds all" in part
    assert "the rest with none" in browser.render(max_bytes=60)


def test_more_sentences_than_a_page_holds_are_counted(monkeypatch):
    monkeypatch.setattr(browser_module, "MAX_SENTENCES", 3)
    browser = SentenceBrowser()
    for seed in range(5):
        browser.add(sentence(), weights(seed, (1, 1, 2, 2)))
    rendered = browser.render()
    assert "The first 3 of 5. Each with its 1 matrix (1 layer × 1 head)" in rendered
    assert len(texts(rendered)["sentences"]) == 3


def test_a_matrix_that_does_not_fit_is_refused():
    browser = SentenceBrowser()
    browser.add(sentence(), weights(0, (1, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"sentence 2: attention of shape \(1, 1, 2, 2\) does not fit 2 target and 3"):
        browser.add(sentence(("a", "b", "</s>")), weights(0, (1, 1, 2, 2)))
    for value in (-0.5, float("nan")):
        with pytest.raises(ValueError, match="negative or not finite"):
            browser.add(sentence(), np.full((1, 1, 2, 2), value))
