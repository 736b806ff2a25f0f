"""Models with tags: forced tags in the search, scores, and links between words."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from nmt.alignment import AlignmentConfig, AlignmentSource, GoldAlignment, StoredAlignmentSource
from nmt.data import BOS, EOS, PAD, UNK, DataConfig, Tokenizer, TokenizerConfig, collate
from nmt.data.corpora import tag_names
from nmt.data.subword_alignments import AlignmentColumn, project_to_subwords
from nmt.inference.aligner import Aligner
from nmt.inference.line_translator import LineTranslator
from nmt.inference.translator import Translator
from nmt.models import MODELS, build_model
from nmt.search import SearchConfig, make_source_batch, translate_batch
from nmt.search.device_search import DeviceBeamSearch

PAIRS = [("a b", "b a"), ("c a b", "b a c"), ("b", "b"), ("a c c a", "c a a c")]
LANGUAGES = ("de", "fr", "en")


def made(place: str, kind: str = "word", architecture: str = "transformer", **search: Any) -> tuple[Translator, Any]:
    data = DataConfig(format="text", train="train", languages=["en", "de", "fr"], tags=place)
    tokenizer = Tokenizer.train(TokenizerConfig(type=kind, vocab_size=300 if kind == "unigram" else 7), PAIRS)
    tokenizer = tokenizer.with_tags(tag_names(data))
    sizes = {"d_model": 16, "ffn_dim": 16, "embedding_dim": 16, "hidden_size": 16}
    config = MODELS[architecture].config()
    for name, value in sizes.items():
        if hasattr(config, name):
            setattr(config, name, value)
    torch.manual_seed(2)
    model = build_model(config, tokenizer.source_size, tokenizer.target_size, joint=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    options = SearchConfig(**{"max_length_ratio": 0.0, "max_length_offset": 4, **search})
    return Translator(model, tokenizer, options, torch.device("cpu")), data


@pytest.mark.parametrize("architecture", ["transformer", "rnn"])
@pytest.mark.parametrize("place", ["source", "decoder"])
def test_a_wide_beam_finds_the_best_that_begins_with_its_tag(place: str, architecture: str) -> None:
    base, data = made(place, architecture=architecture, beam_size=400, early_stopping="never")
    size, found = base.tokenizer.target_size, set()
    for language in LANGUAGES:
        model = base.into(data, language)
        forced = list(model.tokenizer.prefixes[1])
        assert bool(forced) == (place == "decoder")
        (source,) = model.tokenizer.encode_source([PAIRS[1][0]])
        unknown = [UNK] * (base.config.replace_unknown == "forbid")
        allowed = [i for i in range(size - len(base.tokenizer.tags)) if i not in (PAD, BOS, EOS, *unknown)]
        lengths = range(5 - len(forced))
        targets = [[*forced, *ids] for n in lengths for ids in itertools.product(allowed, repeat=n)]
        batch = collate([source] * len(targets), targets)
        with torch.no_grad():
            logits, _ = model.model(batch.source, batch.source_mask, batch.inputs)
        labels = logits.log_softmax(-1).gather(2, batch.labels.unsqueeze(2)).squeeze(2)
        sums = torch.stack([row[: len(ids) + 1].sum() for row, ids in zip(labels, targets, strict=True)])
        norms = torch.tensor([(len(ids) + 1) ** base.config.length_penalty for ids in targets])
        best = int((sums / norms).argmax())
        (translation,) = model.translate([PAIRS[1][0]])
        assert translation.tokens == targets[best]
        assert translation.log_prob == pytest.approx(float(sums[best]), abs=1e-4)
        found.add((translation.text, round(translation.log_prob, 4)))
    assert len(found) == 3  # otherwise the tags would show nothing


@pytest.mark.parametrize("method", ["beam", "sample", "device"])
@pytest.mark.parametrize("place", ["source", "decoder"])
@torch.no_grad()
def test_no_tag_is_generated(place: str, method: str) -> None:
    base, data = made(place, method=method.replace("device", "beam"), min_length_offset=3)
    model, num = base.into(data, "fr"), len(base.tokenizer.tags)
    cast(Any, model.model).output.bias[-num:] += 100.0  # it would write nothing but tags
    sources, prefix = model.tokenizer.encode_source([source for source, _ in PAIRS]), list(model.tokenizer.prefixes[1])
    source, mask = make_source_batch(model.model, sources)
    prefixes = [prefix] * len(sources)
    if method == "device":
        search = DeviceBeamSearch(model.model, len(sources), source.size(1), model.config, model.device)
        search.start(source, mask, prefixes)
        decoded = search.run()
    else:
        decoded = translate_batch(model.model, source, mask, model.config, prefixes=prefixes)
    for best, *_ in decoded:
        assert best.tokens[: len(prefix)] == prefix
        assert max(best.tokens[len(prefix) :], default=0) < base.tokenizer.target_size - num
    assert all(len(best.tokens) >= 3 for best, *_ in decoded)


@pytest.mark.parametrize("place", ["source", "decoder"])
def test_batches_and_scores_agree(place: str) -> None:
    base, data = made(place, beam_size=3, n_best=2)
    texts = [source for source, _ in PAIRS]
    for language in LANGUAGES:
        model = base.into(data, language)
        together = model.n_best(texts)
        for text, n_best in zip(texts, together, strict=True):
            (alone,), streamed = model.n_best([text]), list(model.stream_n_best(text))[-1]
            for one in (alone, streamed):
                assert [t.tokens for t in one] == [t.tokens for t in n_best]
                assert [t.log_prob for t in one] == pytest.approx([t.log_prob for t in n_best], abs=1e-4)
            for t in n_best:
                names = model.tokenizer.target_subwords(t.tokens)
                (score,) = model.score([(text, t.text, names)])
                assert score.log_prob == pytest.approx(t.log_prob, abs=1e-4)
                assert score.score == pytest.approx(t.score, abs=1e-4)


@pytest.mark.parametrize("place", ["source", "decoder"])
@pytest.mark.parametrize("null", [True, False])
def test_links_are_between_words(place: str, null: bool) -> None:
    base, data = made(place)
    model = base.into(data, "fr")
    model.stored_source = StoredAlignmentSource(AlignmentSource(2, 1, 0, null))
    sources, targets = model.encode_pairs(PAIRS)
    links = model.links(PAIRS)
    assert links is not None
    expected = []
    for i, weights in model.attention_weights(sources, targets):
        matrix = weights[1, 0]
        first, first_target = map(len, model.tokenizer.prefixes)
        assert matrix.shape == (len(targets[i]) + 1, len(sources[i]) + 1)
        assert len(sources[i]) == len(PAIRS[i][0].split()) + first
        words = matrix[first_target:-1, first:-1]  # a word is one token here
        rest = matrix[first_target:-1, :first].sum(1) + matrix[first_target:-1, -1]
        own = [(int(s), t) for t, s in enumerate(words.argmax(1)) if not null or words[t, s] >= rest[t]]
        assert links[i] == own
        expected.append((i, own))
        for s, t in model.subword_links(weights, sources[i], targets[i]):
            assert first <= s < len(sources[i])
            assert first_target <= t < len(targets[i])
        if not null:
            subword_links = model.subword_links(weights, sources[i], targets[i])
            assert [(s - first, t - first_target) for s, t in subword_links] == own
    gold = [GoldAlignment(frozenset(own), frozenset(own)) for _, own in sorted(expected)]
    evaluation = Aligner(model, AlignmentConfig(), model.stored_source.source).evaluate(PAIRS, gold)
    assert evaluation is not None
    assert evaluation.score.aer == 0
    assert sum(len(own) for _, own in expected) > 0


def test_reference_attention_is_shifted_by_the_tags() -> None:
    column = AlignmentColumn(np.array([[0, 1], [1, 0]], np.int16), np.array([0, 2]))
    found = []
    for place in ("none", "source", "decoder"):
        base, data = made("source" if place == "none" else place)
        model = base.into(replace(data, tags=place), "de") if place != "none" else base
        sources, targets = model.encode_pairs(PAIRS[:1])
        ids = [np.array([[*side[0], EOS]]) for side in (sources, targets)]
        targets_of = project_to_subwords(column, np.array([0]), ids[0], ids[1], model.tokenizer)
        found.append(targets_of.indices.numpy() - np.array([[0], *([len(p)] for p in model.tokenizer.prefixes[::-1])]))
        assert targets_of.weights.tolist() == [1.0, 1.0]
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_a_line_is_split_with_its_tag(tmp_path: Path) -> None:
    base, data = made("source", kind="unigram")
    model, text = base.into(data, "fr"), "\N{GRINNING FACE}" * 5
    (ids,) = model.tokenizer.encode_source([text])
    assert len(ids) == 4 * len(text) + 2  # bytes, the space before the first, and the tag
    for limit in (len(ids) - 1, len(ids)):
        segments = LineTranslator(model, limit)._split(text)
        assert max(len(ids) for ids in model.tokenizer.encode_source(segments)) <= limit
        assert len(segments) == 1 + (limit < len(ids))
