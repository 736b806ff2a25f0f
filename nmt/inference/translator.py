"""A model with its tokenizer: translate texts, and compute the attention of given pairs."""

import contextlib
import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from nmt import checkpoint, search
from nmt.alignment import AlignmentSource, Link, StoredAlignmentSource
from nmt.alignment.markup import Matrix, Ranges, unit_weights
from nmt.attention import CROSS, AttentionLayer
from nmt.attention.linear import packed_weights
from nmt.config import from_dict
from nmt.data import EOS, UNK, DataConfig, Tokenizer, batch_to_device, collate
from nmt.data.corpora import default_direction, directions, tokenizer_for
from nmt.data.terms import annotate
from nmt.inference.interventions import Intervention, with_own_attention
from nmt.inference.scorer import PairScore, token_log_probs
from nmt.models import MODELS, Seq2Seq
from nmt.models.loading import load_model
from nmt.runtime.device import autocast, resolve_precision
from nmt.runtime.memory import halve_on_oom
from nmt.runtime.text import UNSPACED, is_blank
from nmt.search import SearchConfig
from nmt.search.constraints import Phrases
from nmt.search.scoring import length_norm

BATCH_TOKENS = 4096


class Translation(NamedTuple):
    """One translated text.

    tokens: its ids without end token.
    score, log_prob, truncated: see `search.Hypothesis`.
    """

    text: str
    tokens: list[int]
    score: float
    truncated: bool
    log_prob: float = 0.0


EMPTY_TRANSLATION = Translation("", [], 0.0, False)


Ids = Sequence[Sequence[int]]
Terms = Sequence[tuple[int, int, str]]
"""Of a text: first character and the one after the last of each term, and its target."""
ScoredPair = tuple[str, str, Sequence[str]]
"""Source, target, and the target's subwords if they are known."""
Decoded = Iterator[tuple[int, list[search.Hypothesis]]]


class Engine(Protocol):
    """A program other than torch: `decode` is in place of `search.decode`, which it calls for what it does not hold."""

    name: str
    description: str

    def holds(self, config: SearchConfig) -> bool: ...
    def decode(self, translator: "Translator", sources: Ids, prefixes: Ids, phrases: Phrases) -> Decoded: ...


class Translator:
    """Translates and aligns.

    Args:
        model: on `device`; it is put into evaluation mode for each call and back afterwards.
        tokenizer: the one the model was trained with.
        config: how to search.
        device: of the model.
        carried: the stored alignment source; None: the mean of all layers and heads.
        member: of an ensemble the number, from 1, of the model whose attention is used; None: it is no ensemble.

    Raises:
        ValueError: an option of the search needs attention, and the model has none.
    """

    def __init__(
        self,
        model: Seq2Seq,
        tokenizer: Tokenizer,
        config: SearchConfig,
        device: torch.device,
        *,
        carried: StoredAlignmentSource | None = None,
        member: int | None = None,
    ) -> None:
        self.model, self.tokenizer, self.config, self.device = model, tokenizer, config, device
        self.precision = resolve_precision(config.precision, device)
        self.stored_source, self.member = carried or StoredAlignmentSource(), member
        self.engine: Engine | None = None
        self.on_sample: Callable[[], None] | None = None  # called for each sample of mbr; it may raise to stop
        self.data: DataConfig | None = None  # of the run, where `into` was called, and what with
        self.target_lang: str | None = None
        self.tag: str | None = None
        model.num_tags = len(tokenizer.tags)
        copies = config.replace_unknown == "copy"
        if (config.coverage_penalty or copies) and not cross_attention_modules(model):
            option, other = ("replace_unknown", "none or forbid") if copies else ("coverage_penalty", "0")
            raise ValueError(
                f"search.{option}={getattr(config, option)}: the model has no attention; set it to {other}"
            )

    @classmethod
    def from_checkpoints(
        cls, contents: Sequence[dict[str, Any]], config: SearchConfig | None, device: torch.device
    ) -> Self:
        """Create a translator from results of `checkpoint.load`: one model, or an ensemble with one vocabulary.

        The attention of an ensemble is that of its first model with attention, and so is the alignment source. Without
        a `config`, search as in training.

        Raises:
            ValueError: their vocabularies differ, or a coverage penalty and none of them has attention.
        """
        loaded = [_load(content) for content in contents]
        models, tokenizers = [model for model, *_ in loaded], [tokenizer for _, tokenizer, _ in loaded]
        for number, tokenizer in enumerate(tokenizers, 1):
            if tokenizer.digest != tokenizers[0].digest:
                raise ValueError(
                    f"checkpoint: number {number} of the list has another vocabulary than the first: an ensemble needs "
                    "models that were trained with the same tokenizer"
                )
        member = next((number for number, model in enumerate(models, 1) if cross_attention_modules(model)), 1)
        is_ensemble = len(models) > 1
        return cls(
            (search.Ensemble(models) if is_ensemble else models[0]).to(device).eval(),
            tokenizers[0],
            config or from_dict(SearchConfig, contents[0]["config"]["search"], "search."),
            device,
            carried=loaded[member - 1][2],
            member=member if is_ensemble else None,
        )

    @classmethod
    def from_checkpoint(cls, content: dict[str, Any], config: SearchConfig | None, device: torch.device) -> Self:
        """Create a translator from one result of `checkpoint.load`; see `from_checkpoints`."""
        return cls.from_checkpoints([content], config, device)

    def into(self, data: DataConfig, target_lang: str | None, tag: str | None = None) -> Self:
        """Return a translator of the same model that translates into another language, or as text with a tag.

        Args:
            data: the options of the run.
            target_lang: None: that of `default_direction`.
            tag: of one of its corpora; None: none.

        Raises:
            ValueError: the model does not translate into this language, or has no such tag.
        """
        translator, wanted = copy.copy(self), target_lang or default_direction(data)[1]
        if wanted not in (known := dict.fromkeys(target for _, target in directions(data))):
            raise ValueError(f"target_lang={wanted}: the model translates into {', '.join(known)}")
        translator.tokenizer = tokenizer_for(data, self.tokenizer, wanted, tag)
        translator.data, translator.target_lang, translator.tag = data, wanted, tag
        return translator

    def read_from(self, alignment: Mapping[str, Any]) -> Self:
        """Return a translator of the same model with another alignment source: a layer and head, as {"layer": 2,
        "head": 3} from 1 (0: the mean), with the stored rule. Raise ValueError naming those there are."""
        if not isinstance(alignment, Mapping) or not {*alignment} <= {"layer", "head"}:
            raise ValueError('alignment: must have a layer, and a head where wanted, as in {"layer": 2, "head": 3}')
        attentions = cross_attention_modules(self.attention_model)
        layer, head = alignment.get("layer", 0), alignment.get("head", 0)
        if not attentions:
            raise ValueError("alignment: the model has no attention to the source (model.attention.score=none)")
        for name, value, count in (("layer", layer, len(attentions)), ("head", head, attentions[0].heads)):
            if type(value) is not int or not 0 <= value <= count:
                raise ValueError(f"alignment: {name}={str(value)[:40]}: must be 0 (the mean) to {count}")
        if head and not layer and len(attentions) > 1:
            raise ValueError(f"alignment: head={head}: every layer has one; give layer, 1 to {len(attentions)}, too")
        translator, stored = copy.copy(self), self.stored_source
        source = stored.source._replace(layer=layer or int(bool(head)), head=head)
        translator.stored_source = stored._replace(source=source)
        return translator

    def intervene(self, interventions: Sequence[Intervention]) -> Self:
        """Return a translator of the same model in which other attention to the source acts; see `Intervention`.

        In an ensemble it acts in the one member whose attention is used. This translator stays as it is.

        Raises:
            ValueError: there is no such layer or head, weights are not allowed, or another engine than torch decodes.
        """
        if self.engine is not None and self.engine.name != "auto":
            raise ValueError(f"engine={self.engine.name}: only torch can intervene in attention; set engine=torch")
        translator = copy.copy(self)
        translator.model, translator.engine = with_own_attention(self.model), None
        for intervention in interventions:
            intervention.apply(cross_attention_modules(translator.attention_model))
        return translator

    @property
    def attention_model(self) -> Seq2Seq:
        """The model whose attention is used: of an ensemble one member, else the model itself."""
        if self.member is None:
            return self.model
        return cast(Seq2Seq, cast(search.Ensemble, self.model).members[self.member - 1])

    def describe(self, source: AlignmentSource) -> str:
        """Return an alignment source as text, with the number of the model of an ensemble."""
        return str(source) + ("" if self.member is None else f", of model {self.member} of the ensemble")

    def translate(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> list[Translation]:
        """Return one translation per text, in order; that of a blank text is empty.

        Args:
            texts: source sentences.
            on_batch: called with the number of sentences done so far; it may raise to stop.

        Raises:
            ValueError: a text is longer than `max_source_length`.
        """
        return [best[0] for best in self.n_best(texts, on_batch=on_batch)]

    def n_best(
        self,
        texts: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        phrases: Sequence[Sequence[str]] | None = None,
        terms: Sequence[Terms] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Translation]]:
        """Return the `n_best` translations of each text, the best first; there may be fewer.

        Args and errors as in `translate`; each translation begins with its prefix, and may continue its last word. It
        contains its phrases, with the subwords that they have inside a sentence: see `PhraseStates`. `terms` are as in
        `encode_sources`.
        """
        sources, num_tags = self.encode_sources(texts, terms), len(self.tokenizer.prefixes[1])
        prefix_ids = self.tokenizer.encode_target(prefixes or [""] * len(texts))  # tags are forced
        indices = [i for i, text in enumerate(texts) if not is_blank(text) or len(prefix_ids[i]) > num_tags]
        selected_sources, selected_prefixes = ([ids[i] for i in indices] for ids in (sources, prefix_ids))
        selected_phrases = [self.encode_phrases(phrases[i]) if phrases else [] for i in indices]
        translations = [[EMPTY_TRANSLATION] for _ in texts]
        with self.decoding():
            to_text = self.tokenizer.decode_target
            options = self.model, selected_sources, self.config, self.device
            decoded = search.decode(*options, prefixes=selected_prefixes, phrases=selected_phrases, text=to_text)
            if self.engine is not None:
                decoded = self.engine.decode(self, selected_sources, selected_prefixes, selected_phrases)
            for num_done, (index, hypotheses) in enumerate(decoded, 1):
                text, source = texts[indices[index]], selected_sources[index]
                translations[indices[index]] = self._to_translations(hypotheses, text, source)
                if on_batch is not None and num_done % self.config.batch_size == 0:
                    on_batch(num_done)
        return translations

    def encode_phrases(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of target texts as they are inside a sentence, after a space or a mark of Chinese."""
        encode, phrases = self.tokenizer.encode_target, []
        for text in texts:
            before = "。" if re.match(f"[{UNSPACED}]", text) else ". "
            (begin, whole), (ids,) = encode([before.strip(), before + text]), encode([text])
            is_subword = self.tokenizer.type in ("unigram", "bpe") and whole[: len(begin)] == begin
            phrases.append(whole[len(begin) :] if is_subword else ids[len(self.tokenizer.prefixes[1]) :])
        return phrases

    def written(self, texts: Sequence[str]) -> list[str]:
        """Return target texts as the vocabulary writes them inside a sentence."""
        return [self.tokenizer.decode_target(ids).strip(" ") for ids in self.encode_phrases(texts)]

    def stream_n_best(self, text: str, *, prefix: str = "") -> Iterator[list[Translation]]:
        """Yield the most promising translation of one text after every step, and finally its `n_best` translations."""
        if self.config.method != "beam" or is_blank(text):
            yield self.n_best([text], prefixes=[prefix])[0]
            return
        sources = self.tokenizer.encode_source([text])
        source, mask = (tensor.to(self.device) for tensor in search.make_source_batch(self.model, sources))
        prefixes = self.tokenizer.encode_target([prefix])
        with self.decoding(), torch.no_grad():
            decode_target = self.tokenizer.decode_target
            beam = search.BeamSearch(self.model, source, mask, self.config, prefixes=prefixes, text=decode_target)
            while not beam.done:
                beam.step()
                (tokens,) = beam.best_so_far()
                yield [Translation(self.tokenizer.decode_target(tokens), tokens, 0.0, False)]
            yield self._to_translations(beam.results()[0], text, sources[0])

    def score(self, pairs: Sequence[ScoredPair], reverse: "Translator | None" = None) -> list[PairScore]:
        """Return the score of each target, given its source; `reverse` is a model of the other direction.

        The subwords of a target are those given, if these make up the text: a search may have found others.
        """
        texts = [[text.strip(" ") * (not is_blank(text)) for text in pair[:2]] for pair in pairs]
        sources, targets = self.encode_pairs([(source, target) for source, target in texts])
        all_names = self.tokenizer.target_subwords(range(self.tokenizer.target_size if any(p[2] for p in pairs) else 0))
        names = {name: i for i, name in enumerate(all_names)}
        for i, (_, text, subwords) in enumerate(pairs):
            ids = [names.get(str(name), UNK) for name in subwords]
            if ids and self.tokenizer.decode_target(ids) == text:
                targets[i] = ids
        sizes = list(map(len, self.tokenizer.prefixes))
        is_text = [len(s) > sizes[0] or len(t) > sizes[1] for s, t in zip(sources, targets, strict=True)]
        ids_of_pairs = {i: (sources[i], targets[i]) for i, scored in enumerate(is_text) if scored}
        with self.decoding():
            log_probs = dict(token_log_probs(self.model, ids_of_pairs, self.config, self.device))
        swapped: list[ScoredPair] = [(target, source, ()) for source, target, _ in pairs]
        others = reverse.score(swapped) if reverse is not None else [None] * len(pairs)
        scores = []
        for i, (ids, other) in enumerate(zip(targets, others, strict=True)):
            result, subwords = log_probs.get(i, []), self.tokenizer.target_subwords(ids if is_text[i] else [])
            values = [-math.inf] if isinstance(result, str) else result
            total, num, num_words = math.fsum(values), max(len(values), 1), len(texts[i][1].split()) + 1
            by_length = total / float(length_norm(self.config, num)), total / num, total / num_words
            perplexity = math.exp(min(-total / num, 100.0))
            score = PairScore(total, *by_length, len(values), perplexity, subwords=subwords, token_log_probs=values)
            if other is not None:
                mean, difference = (total / num + other.per_token) / 2, abs(total / num - other.per_token)
                score = score._replace(reverse_log_prob=other.log_prob, error=other.error)
                score = score._replace(mean_score=(score.score + other.score) / 2, dual=math.exp(mean - difference))
            scores.append(score._replace(error=result) if isinstance(result, str) else score)
        return scores

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Put the model into evaluation mode and the precision of the search while the block runs."""
        with evaluation_mode(self.model), packed_weights(self.model, self.precision):
            yield

    @property
    def engine_used(self) -> str:
        """The program that decodes with the options of the search, "" for torch."""
        return self.engine.description if self.engine is not None and self.engine.holds(self.config) else ""

    @property
    def max_source_length(self) -> int | None:
        """The longest source that the model can take, in tokens without end token; None: any."""
        return None if self.model.max_source_length is None else self.model.max_source_length - 1

    def _to_translations(
        self, hypotheses: Sequence[search.Hypothesis], text: str, source: Sequence[int]
    ) -> list[Translation]:
        """Return the `n_best` translations of one sentence, of equal texts the one with the best score; for mbr, rank
        the samples by expected utility."""
        texts = self._decode([h.tokens for h in hypotheses], text, source)
        pairs = zip(texts, hypotheses, strict=True)
        translations = [Translation(text, h.tokens, h.score, h.truncated, h.log_prob) for text, h in pairs]
        if self.config.method == "mbr":
            scores = search.expected_utilities(texts, self.config.mbr_utility, on_sample=self.on_sample)
            translations = [t._replace(score=float(score)) for t, score in zip(translations, scores, strict=True)]
        distinct: dict[str, Translation] = {}
        for translation in translations:
            distinct.setdefault(translation.text, translation)
        translations = list(distinct.values())
        if self.config.method == "mbr":
            translations.sort(key=lambda t: (-t.score, -t.log_prob, t.tokens))
        return translations[: self.config.n_best]

    def _decode(self, targets: Sequence[list[int]], text: str, source: Sequence[int]) -> list[str]:
        """Return the texts of translations of one sentence, with copies for unknown tokens if these are wanted."""
        texts = [self.tokenizer.decode_target(ids) for ids in targets]
        unknown = [i for i, ids in enumerate(targets) if UNK in ids]
        if self.config.replace_unknown == "copy" and unknown:
            words = self.tokenizer.words_to_copy(text, source)
            places = [place for place, word in enumerate(words) if word]
            for number, weights in self.attention_weights([source] * len(unknown), [targets[i] for i in unknown]):
                ids, stored = targets[unknown[number]], self.stored_source.source
                rows = stored.matrix(weights)[stored.shift :][[t for t, token in enumerate(ids) if token == UNK]]
                copies = [words[places[index]] for index in rows[:, places].argmax(-1)] if places else []
                texts[unknown[number]] = self.tokenizer.decode_target(ids, copies)
        return texts

    def attention_weights(self, sources: Ids, targets: Ids) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Run `attention_model` with teacher forcing on pairs of ids without end tokens.

        Yields:
            (index, weights (L, H, T, S)) with T and S counting the end token; nothing for a model without attention.
        """
        order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), len(targets[i])))
        model = self.attention_model

        def compute(indices: Sequence[int]) -> list[tuple[int, NDArray[np.float32]]] | None:
            batch = collate([sources[i] for i in indices], [targets[i] for i in indices])
            batch = batch_to_device(batch, self.device)
            no_logits = batch.label_indices[:0]
            _, weights = model(batch.source, batch.source_mask, batch.inputs, attention=True, positions=no_logits)
            if weights is None:
                return None
            cross = weights.cross.float().cpu().numpy()  # one transfer
            sizes = ((len(targets[i]) + 1, len(sources[i]) + 1) for i in indices)
            return [(i, cross[row, :, :, :t, :s]) for row, (i, (t, s)) in enumerate(zip(indices, sizes, strict=True))]

        with evaluation_mode(model), torch.no_grad(), autocast("fp32", self.device):
            for indices in _batches(order, sources, targets):
                remedy = "shorten it, or use device=cpu"
                for part in halve_on_oom(compute, indices, what="pairs whose attention is computed", remedy=remedy):
                    if part is None:
                        return
                    yield from part

    def attention_shape(self) -> tuple[int, int]:
        """Return the numbers of layers and heads of the attention to the source, (0, 0) without."""
        for _, weights in self.attention_weights([[]], [[]]):
            return weights.shape[0], weights.shape[1]
        return 0, 0

    def subword_links(self, weights: NDArray[np.float32], source: Sequence[int], target: Sequence[int]) -> list[Link]:
        """Return links (source, target) from each target subword to the one it attends to most, unless that is </s>.

        Tags count as </s> does.
        """
        stored, num, (first, first_target) = self.stored_source.source, len(source), map(len, self.tokenizer.prefixes)
        if num <= first:
            return []
        rows = stored.matrix(weights)[stored.shift :][: len(target)]
        best = (rows if stored.null else rows[:, first:num]).argmax(-1) + (0 if stored.null else first)
        return [(int(s), t) for t, s in enumerate(best) if first <= s < num and t >= first_target]

    def unit_weights(
        self,
        texts: tuple[str, str],
        ids: Ids,
        weights: NDArray[np.float32],
        units: tuple[Ranges, Ranges],
        head: AlignmentSource | None = None,
    ) -> Matrix:
        """Return attention (Tu, Su) between the `units` of a pair of texts, from weights (L, H, T, S) between its ids,
        in the layer and head of an alignment source, by default `stored_source`."""
        rows = (head or self.stored_source.source).plot_rows(weights)
        return unit_weights(rows, *self.tokenizer.offsets(texts[0], ids[0], texts[1], ids[1]), *units)

    def encode_sources(self, texts: Sequence[str], terms: Sequence[Terms] | None = None) -> list[list[int]]:
        """Return the ids of sources, without end tokens, annotated with the terms of each text unless they are longer
        than `max_source_length` then. Errors as of `annotate`."""
        sources, limit = self.tokenizer.encode_source(texts), self.max_source_length
        for i, pairs in enumerate(terms or ()):
            ids = annotate(self.tokenizer, texts[i], pairs)
            sources[i] = ids if limit is None or len(ids) <= limit else sources[i]
        return sources

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
        """Return the ids of sources and targets, without end tokens."""
        sources = self.tokenizer.encode_source([source for source, _ in pairs])
        return sources, self.tokenizer.encode_target([target for _, target in pairs])

    def pair_words(
        self, texts: tuple[str, str], source: Sequence[int], target: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Return for each subword of a pair, the end tokens included, its word in the texts; see `WordIds.in_text`."""
        tokenizer = self.tokenizer
        return tokenizer.source_words(texts[0], [*source, EOS]), tokenizer.target_words(texts[1], [*target, EOS])

    def links(self, pairs: Sequence[tuple[str, str]]) -> list[list[Link]] | None:
        """Return word links of pairs of texts; None for a model without attention."""
        sources, targets = self.encode_pairs(pairs)
        weights = self.attention_weights(sources, targets)
        links = {}
        for i, matrix in weights:
            source_words, target_words = self.pair_words(pairs[i], sources[i], targets[i])
            links[i] = self.stored_source.source.links(matrix, target_words, source_words)
        return [links[i] for i in range(len(pairs))] if links else None


def _load(content: dict[str, Any]) -> tuple[Seq2Seq, Tokenizer, StoredAlignmentSource]:
    with checkpoint.interpreting(content):
        tokenizer = Tokenizer.from_state_dict(content["tokenizer"])
        if tokenizer.tags:
            data = from_dict(DataConfig, content["config"]["data"], "data.")
            tokenizer = tokenizer_for(data, tokenizer, default_direction(data)[1])
        stored = content["config"]["model"]
        config = from_dict(MODELS[stored["architecture"]].config, stored, "model.")
        sizes = tokenizer.source_size, tokenizer.target_size
        model = load_model(config, content["model"], *sizes, joint=tokenizer.joint)
        carried, layers = StoredAlignmentSource.from_dict(content), cross_attention_modules(model)
        if layers and (carried.source.layer > len(layers) or carried.source.head > layers[0].heads):
            raise ValueError(f"alignment_source: the model has no {carried.source}")
        return model, tokenizer, carried


def cross_attention_modules(model: Seq2Seq) -> list[AttentionLayer]:
    """Return the attentions to the source, in the order of the layers of `AttentionWeights`."""
    layers = (module for module in model.modules() if isinstance(module, AttentionLayer))
    return [layer for layer in layers if layer.attention_type == CROSS]


@contextlib.contextmanager
def evaluation_mode(model: Seq2Seq) -> Iterator[None]:
    """Put the model into evaluation mode while the block runs."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _batches(order: Sequence[int], sources: Ids, targets: Ids) -> Iterator[list[int]]:
    """Yield batches of indices with at most `BATCH_TOKENS` padded tokens on either side."""
    batch: list[int] = []
    max_length = 0
    for i in order:
        length = max(len(sources[i]), len(targets[i])) + 1
        if batch and (len(batch) + 1) * max(max_length, length) > BATCH_TOKENS:
            yield batch
            batch, max_length = [], 0
        batch.append(i)
        max_length = max(max_length, length)
    if batch:
        yield batch
