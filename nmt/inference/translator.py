"""A model and its tokenizer together: text to text, and the attention of finished pairs."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nmt import alignment, search
from nmt.alignment import AlignmentSource, StoredAlignmentSource
from nmt.attention import CROSS, Attention
from nmt.config import from_dict
from nmt.data import EOS, Tokenizer, batch_to_device, collate
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.search import SearchConfig

BATCH_TOKENS = 4096


class Translation(NamedTuple):
    """One translated text.

    tokens: its ids without end token.
    score: see `search.Hypothesis`.
    cut: the longest length allowed ended it.
    log_prob: natural logarithm of its probability.
    """

    text: str
    tokens: list[int]
    score: float
    truncated: bool
    log_prob: float = 0.0


EMPTY_TRANSLATION = Translation("", [], 0.0, False)


class WordAlignment(NamedTuple):
    """matrix (target words, source words + 1) as `alignment.words` gives it, and its links (source, target)."""

    matrix: NDArray[np.float64]
    links: list[tuple[int, int]]


class Translator:
    """Translates and aligns.

    Args:
        model: on `device`; it is put into evaluation mode for each call and back afterwards.
        tokenizer: the one the model was trained with.
        config: how to search.
        device: where the model is.
        carried: which layer and head its alignments are read from; None: the mean of all.
        member: of an ensemble the number, from 1, of the model whose attention is read; None: it is no ensemble.
        on_sample: called for each sample that mbr compares with the others; it may raise to stop.

    Raises:
        ValueError: `config` asks for what the model does not have.
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
        on_sample: Callable[[], None] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.config, self.device = model, tokenizer, config, device
        self.carried, self.member, self.on_sample = carried or StoredAlignmentSource(), member, on_sample
        if config.coverage_penalty and not _attends(model):
            raise ValueError(
                f"search.coverage_penalty={config.coverage_penalty}: the model has no attention; set it to 0"
            )

    @classmethod
    def from_checkpoints(
        cls, contents: Sequence[dict[str, Any]], config: SearchConfig | None, device: torch.device
    ) -> "Translator":
        """From what `checkpoint.load` returned: one model, or an ensemble of several with one vocabulary.

        The attention of an ensemble is that of its first model that has any, read as that model's checkpoint says.

        Raises:
            ValueError: their vocabularies differ, or none of them has what `config` asks for.
        """
        if len(contents) == 1:
            return cls.from_checkpoint(contents[0], config, device)
        first, *others = tokenizers = [Tokenizer.from_state_dict(content["tokenizer"]) for content in contents]
        for number, other in enumerate(others, 2):
            if other.digest != first.digest:
                raise ValueError(
                    f"checkpoint: number {number} of the list has another vocabulary than the first: an ensemble needs "
                    "models that were trained with the same tokenizer"
                )
        models = [_model(content, tokenizer) for content, tokenizer in zip(contents, tokenizers, strict=True)]
        member = next((number for number, model in enumerate(models, 1) if _attends(model)), 1)
        ensemble = search.Ensemble(models).to(device).eval()
        config = config or _search_config(contents[0])
        return cls(
            ensemble,
            first,
            config,
            device,
            carried=StoredAlignmentSource.from_dict(contents[member - 1]),
            member=member,
        )

    @classmethod
    def from_checkpoint(
        cls, content: dict[str, Any], config: SearchConfig | None, device: torch.device
    ) -> "Translator":
        """From what `checkpoint.load` returned; `config` None: search as in training."""
        tokenizer = Tokenizer.from_state_dict(content["tokenizer"])
        model = _model(content, tokenizer).to(device).eval()
        return cls(
            model,
            tokenizer,
            config or _search_config(content),
            device,
            carried=StoredAlignmentSource.from_dict(content),
        )

    @property
    def attention_model(self) -> Seq2Seq:
        """The model whose attention is read: of an ensemble one member, else the model itself."""
        if self.member is None:
            return self.model
        assert isinstance(self.model, search.Ensemble)
        found = self.model.members[self.member - 1]
        assert isinstance(found, Seq2Seq)
        return found

    def describe(self, reading: AlignmentSource) -> str:
        """Where alignments are read from; of an ensemble also of which model."""
        return str(reading) + ("" if self.member is None else f", of model {self.member} of the ensemble")

    def translate(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> list[Translation]:
        """One translation per text, in order; a text without words has none, the empty one.

        Args:
            texts: source sentences.
            on_batch: called with the number of sentences done so far; it may raise to stop.

        Raises:
            ValueError: a text is longer than the model can take (see `longest`).
        """
        return [best[0] for best in self.n_best(texts, on_batch=on_batch)]

    def n_best(
        self,
        texts: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Translation]]:
        """The `n_best` translations of each text, the best first; there may be fewer.

        Args:
            texts: source sentences.
            prefixes: how each translation must begin; what follows may go on with its last word.
            on_batch: as for `translate`.

        Raises:
            ValueError: as `translate`.
        """
        sources = self.tokenizer.encode_source(texts)
        begun = None if prefixes is None else self.tokenizer.encode_target(prefixes)
        wanted = [i for i, text in enumerate(texts) if text.strip(" ") or (begun is not None and begun[i])]
        found: dict[int, list[Translation]] = {}
        with _evaluating(self.model):
            batches = search.decode(
                self.model,
                [sources[i] for i in wanted],
                self.config,
                self.device,
                prefixes=None if begun is None else [begun[i] for i in wanted],
            )
            for index, hypotheses in batches:
                found[wanted[index]] = self._ranked(hypotheses)
                if on_batch is not None and len(found) % self.config.batch_size == 0:
                    on_batch(len(found))
        return [found.get(index, [EMPTY_TRANSLATION]) for index in range(len(sources))]

    def stream(self, text: str, *, prefix: str = "") -> Iterator[Translation]:
        """The translation of one text as it comes: the most promising one after every step, at last the translation.

        Raises:
            ValueError: as `translate`.
        """
        for found in self.stream_n_best(text, prefix=prefix):
            yield found[0]

    def stream_n_best(self, text: str, *, prefix: str = "") -> Iterator[list[Translation]]:
        """As `stream`; what comes last are the `n_best` translations, the best first, as `n_best` gives them."""
        if self.config.method == "beam" and text.strip(" "):
            source, mask = search.make_source_batch(self.model, self.tokenizer.encode_source([text]))
            begun = self.tokenizer.encode_target([prefix])
            with _evaluating(self.model), torch.no_grad():
                beam = search.BeamSearch(
                    self.model, source.to(self.device), mask.to(self.device), self.config, prefixes=begun
                )
                while not beam.done:
                    beam.step()
                    (tokens,) = beam.best_so_far()
                    yield [Translation(self.tokenizer.decode_target(tokens), tokens, 0.0, False)]
                yield self._ranked(beam.results()[0])
        else:
            yield self.n_best([text], prefixes=[prefix])[0]

    @property
    def max_source_length(self) -> int | None:
        """The longest source that the model can take, in tokens without end token; None: any."""
        return None if self.model.max_source is None else self.model.max_source - 1

    def _ranked(self, hypotheses: Sequence[search.Hypothesis]) -> list[Translation]:
        """The translations wanted of what was found for one sentence; drawn ones by expected utility for mbr."""
        found = [
            Translation(self.tokenizer.decode_target(h.tokens), h.tokens, h.score, h.truncated, h.log_prob)
            for h in hypotheses
        ]
        if self.config.method == "mbr":
            scores = search.expected_utilities(
                [t.text for t in found], self.config.mbr_utility, on_sample=self.on_sample
            )
            found = [t._replace(score=float(score)) for t, score in zip(found, scores, strict=True)]
            distinct = {t.text: t for t in reversed(found)}  # of equal texts the most probable
            found = sorted(distinct.values(), key=lambda t: (-t.score, -t.log_prob, t.tokens))
        return found[: self.config.n_best]

    def attention_weights(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """One teacher-forced pass of `attentive` over given pairs of ids (without end tokens).

        Yields:
            (index, weights (L, H, T, S)) with T and S counting the end token; nothing for a model without attention.
        """
        order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), len(targets[i])))
        model = self.attention_model
        with _evaluating(model), torch.no_grad():
            for rows in _batches(order, sources, targets):
                batch = batch_to_device(collate([sources[i] for i in rows], [targets[i] for i in rows]), self.device)
                nowhere = batch.label_indices[:0]  # no logits are wanted
                _, record = model(batch.source, batch.source_mask, batch.inputs, attention=True, positions=nowhere)
                if record is None:
                    return
                for row, i in enumerate(rows):
                    weights = record.cross[row, :, :, : len(targets[i]) + 1, : len(sources[i]) + 1]
                    yield i, weights.float().cpu().numpy()

    def word_alignment(
        self, weights: NDArray[np.float32], source: Sequence[int], target: Sequence[int]
    ) -> WordAlignment:
        """What alignments are read from of weights (L, H, T, S), projected from subwords to words."""
        source_words = self.tokenizer.source_word_ids([*source, EOS])
        target_words = self.tokenizer.target_word_ids([*target, EOS])
        reading = self.carried.reading
        matrix = reading.word_matrix(weights, target_words, source_words)
        return WordAlignment(matrix, alignment.hard_alignment(matrix, null=reading.null, threshold=reading.threshold))

    def subword_links(
        self, weights: NDArray[np.float32], source: Sequence[int], target: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Links (source, target) of subwords, read as `word_alignment` is: where each target subword attends to most,
        if that is not </s>."""
        reading, num = self.carried.reading, len(source)
        if not num:
            return []
        rows = reading.matrix(weights)[reading.shift :][: len(target), : None if reading.null else num]
        return [(int(s), t) for t, s in enumerate(rows.argmax(-1)) if s < num]

    def links(self, pairs: Sequence[tuple[str, str]]) -> list[list[tuple[int, int]]] | None:
        """Word links of given pairs of texts, from attention; None for a model without attention."""
        sources = self.tokenizer.encode_source([source for source, _ in pairs])
        targets = self.tokenizer.encode_target([target for _, target in pairs])
        found = {
            i: self.word_alignment(w, sources[i], targets[i]).links for i, w in self.attention_weights(sources, targets)
        }
        return [found[i] for i in range(len(pairs))] if found else None


def _model(content: dict[str, Any], tokenizer: Tokenizer) -> Seq2Seq:
    stored = content["config"]["model"]
    config = from_dict(MODELS[stored["architecture"]].config, stored, "model.")
    model = build_model(config, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    model.load_state_dict(content["model"])
    return model


def _search_config(content: dict[str, Any]) -> SearchConfig:
    return from_dict(SearchConfig, content["config"]["search"], "search.")


def _attends(model: Seq2Seq) -> bool:
    """Whether it has attention to the source."""
    return any(isinstance(module, Attention) and module.attention_type == CROSS for module in model.modules())


@contextlib.contextmanager
def _evaluating(model: Seq2Seq) -> Iterator[None]:
    """Evaluation mode while the context lasts."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _batches(
    order: Sequence[int], sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> Iterator[list[int]]:
    batch: list[int] = []
    longest = 0
    for i in order:
        longest_with = max(longest, len(sources[i]) + 1, len(targets[i]) + 1)
        if batch and (len(batch) + 1) * longest_with > BATCH_TOKENS:
            yield batch
            batch, longest_with = [], max(len(sources[i]) + 1, len(targets[i]) + 1)
        batch.append(i)
        longest = longest_with
    if batch:
        yield batch
