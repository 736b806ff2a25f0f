"""Tokenizers: text to ids and back, by subwords, words or characters, with a joint vocabulary or one per language."""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt.config import check_choice, check_range
from nmt.data.reservoir_sampling import reservoir_sample
from nmt.data.sentencepiece_model import SentencePiece
from nmt.data.sentencepiece_proto import import_model
from nmt.data.subword_sampling import Keys
from nmt.data.tags import TERM_TAGS, TaggedModel
from nmt.data.vocabulary import BOS, EOS, PAD, SPECIAL_TOKENS, UNK, FlatIds, TokenizerModel, Vocabulary, symbol_pattern
from nmt.data.word_ids import WordIds
from nmt.plugins import OWNERS
from nmt.runtime.text import is_blank

__all__ = ["BOS", "EOS", "PAD", "SPECIAL_TOKENS", "TOKENIZERS", "UNK", "Tokenizer", "TokenizerConfig"]

Ranges = list[tuple[int, int]]
Offsets = tuple[Ranges, Ranges]
NORMALIZATIONS = ("identity", "nfkc", "nmt_nfkc")
_VERSION = 1


@dataclass
class TokenizerConfig:
    """Segmentation of text into tokens.

    type: what a token is: a subword of a unigram model or of byte-pair encoding (bpe), a word, a character, or what
        stands between spaces in text that another program has split (pretokenized), where every space counts.
    model: a SentencePiece model that was trained elsewhere, unigram or bpe, instead of one trained with the run; with
        joint=false a list [SOURCE,TARGET]. Its pieces and its normalization are used, and vocab_size is its own; the
        run and its checkpoints contain it.
    symbols: texts such as [<tag>,<sep>] that are one token each, never split, also in translations; with word and
        pretokenized where they stand between spaces.
    vocab_size: entries of each vocabulary, the four special symbols included; fewer where the text cannot give as many.
    exact_size: unigram and bpe: an error where the text cannot give as many as vocab_size.
    joint: one vocabulary for both languages; otherwise one of `vocab_size` for each.
    byte_fallback: unigram and bpe spell unknown characters in UTF-8 bytes (256 of the entries), so no text is lost;
        otherwise they become UNK.
    character_coverage: share of the characters of the training text that get an entry of their own (unigram, bpe).
        Below 1 the rarest characters of a large, noisy text do not use up the vocabulary. None: 0.9999 with
        byte_fallback, 1 without.
    normalization: identity, nfkc or nmt_nfkc (unigram, bpe). All but identity lose the difference between equivalent
        characters and runs of spaces, which can raise or lower scores: the default keeps the text as it is.
    lowercase: lowercase all text, in training and afterwards, so translations are lowercase too; for comparison with
        published lowercase scores, with metrics.lowercase=true. Such a model cannot be exported.
    max_training_pairs: the tokenizer is trained on a random sample of at most this many pairs; 0: no limit.
    max_training_characters: most characters of that sample, both sides together; 0: no limit. Unigram needs about a
        second for 6,000 sentences, and 25 bytes of memory for a character.
    subword_regularization: sample segmentations while training; 0 is off. unigram: the smoothing exponent (usually 0.1
        to 0.5, smaller is more random); bpe: the probability of leaving out a merge (usually 0.1), known as BPE
        dropout. Word alignments are unaffected by the segmentation.
    """

    type: str = "unigram"
    model: list[str] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    vocab_size: int = 8000
    exact_size: bool = False
    joint: bool = True
    byte_fallback: bool = True
    character_coverage: float | None = None
    normalization: str = "identity"
    lowercase: bool = False
    max_training_pairs: int = 500_000
    max_training_characters: int = 60_000_000
    subword_regularization: float = 0.0

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        path = "data.tokenizer"
        check_choice(path, self, "type", TOKENIZERS)
        check_range(path, self, ["vocab_size"], minimum=8 + len(self.symbols))
        for symbol in self.symbols:
            if not symbol or set(symbol) & set(" \n\r\t\0▁▅") or [*SPECIAL_TOKENS, *self.symbols].count(symbol) > 1:
                needed = f"a text without spaces, given once, and none of {', '.join(SPECIAL_TOKENS)}"
                raise ValueError(f"{path}.symbols={symbol}: must be {needed}")
        if self.character_coverage is not None:
            check_range(path, self, ["character_coverage"], minimum=0.9, maximum=1)
        check_choice(path, self, "normalization", NORMALIZATIONS)
        check_range(path, self, ["max_training_pairs", "max_training_characters"], minimum=0)
        check_range(path, self, ["subword_regularization"], minimum=0, maximum=1)
        is_subword = TOKENIZERS[self.type].is_subword
        options, reason = ("byte_fallback", "character_coverage"), f"has no effect with {path}.model; leave it out"
        if not is_subword:
            options, reason = ("model", "subword_regularization"), f"needs {path}.type=unigram or bpe, not {self.type}"
        for name in (*options, "exact_size", "normalization") if self.model or not is_subword else ():
            if (value := getattr(self, name)) != getattr(TokenizerConfig(), name):
                raise ValueError(f"{path}.{name}={value}: {reason}")
        if self.model and len(self.model) != (1 if self.joint else 2):
            needed = "one file for both languages, or with joint=false" if self.joint else "with joint=false"
            raise ValueError(f"{path}.model=[{','.join(self.model)}]: must be {needed} a list [SOURCE,TARGET]")

    def coverage(self) -> float:
        """Return `character_coverage` with its default resolved."""
        if self.character_coverage is not None:
            return self.character_coverage
        return 0.9999 if self.byte_fallback else 1.0


class TokenizerSpec(NamedTuple):
    """A tokenizer type: how its model of one side is trained and loaded."""

    is_subword: bool
    train: Callable[[TokenizerConfig, Iterable[str], str], TokenizerModel]
    load: Callable[[dict[str, Any]], TokenizerModel]


def _train_sentencepiece(config: TokenizerConfig, texts: Iterable[str], where: str) -> TokenizerModel:
    return SentencePiece.train(
        list(texts),
        kind=config.type,
        vocab_size=config.vocab_size,
        byte_fallback=config.byte_fallback,
        character_coverage=config.coverage(),
        normalization=config.normalization,
        where=where,
        symbols=config.symbols,
        exact_size=config.exact_size,
    )


def _train_vocabulary(config: TokenizerConfig, texts: Iterable[str], where: str) -> TokenizerModel:
    kinds = {"words": config.type in ("word", "pretokenized"), "spaces": config.type == "pretokenized"}
    vocabulary = Vocabulary.train(texts, config.vocab_size, symbols=config.symbols, **kinds)
    if not vocabulary.items:
        raise ValueError(f"{where} is empty: there is nothing to train a tokenizer on")
    return vocabulary


_UNIGRAM = TokenizerSpec(True, _train_sentencepiece, lambda state: SentencePiece(kind="unigram", **state))
_BPE = TokenizerSpec(True, _train_sentencepiece, lambda state: SentencePiece(kind="bpe", **state))
_VOCABULARY = TokenizerSpec(False, _train_vocabulary, lambda state: Vocabulary(**state))
TOKENIZERS = {"unigram": _UNIGRAM, "bpe": _BPE, **dict.fromkeys(("word", "char", "pretokenized"), _VOCABULARY)}


class Tokenizer:
    """Both languages' mappings between text and ids; one and the same when `joint`.

    Ids are without BOS and EOS. `decode(encode(text)) == text` for every text without a line break, with unigram and
    bpe, byte fallback and the identity normalization, unless `lowercase`. `digest` identifies the models' content;
    `sampling` is the strength of subword regularization in `encode_source_sampled` and `encode_target_sampled`; `files`
    are the SHA-256 of the files of models that were trained elsewhere. `tags` are reserved ids of both sides (see
    `with_tags`), some of which may begin every sequence (see `tagged`).
    """

    def __init__(
        self,
        kind: str,
        source: TokenizerModel,
        target: TokenizerModel,
        *,
        sampling: float = 0.0,
        lowercase: bool = False,
    ) -> None:
        self.type = kind
        self.joint = source is target
        self.subword_regularization = sampling
        self.lowercase = lowercase
        self.files: list[str] = []
        symbols = {text for model in (source, target) for text in getattr(model, "symbols", ())}
        self._symbols = re.compile(f"({symbol_pattern(symbols)})")
        self.source = source
        self.target = target
        self.tags: tuple[str, ...] = getattr(source, "tags", ())
        states = [source.state()] if self.joint else [source.state(), target.state()]
        self.digest = self._untagged = _digest(" ".join([kind, *["lowercase"] * lowercase, *self.tags]), states)

    @classmethod
    def train(cls, config: TokenizerConfig, pairs: Iterable[tuple[str, str]]) -> "Tokenizer":
        """Train on the pairs, or on a random sample within the limits of the options, the same one every time.

        Raises ValueError when there is no text or the vocabulary size cannot be reached.
        """
        sample = reservoir_sample(pairs, config.max_training_pairs, config.max_training_characters).pairs
        if config.lowercase:
            sample = [(source.lower(), target.lower()) for source, target in sample]
        train = TOKENIZERS[config.type].train
        if config.joint:
            source = target = train(config, chain.from_iterable(sample), "the training text")
        else:
            source = train(config, (source for source, _ in sample), "the source side of the training text")
            target = train(config, (target for _, target in sample), "the target side of the training text")
        return cls(config.type, source, target, sampling=config.subword_regularization, lowercase=config.lowercase)

    @classmethod
    def load(cls, config: TokenizerConfig) -> "Tokenizer":
        """Return the tokenizer of the files `config.model`. Raises ValueError or OSError where they do not serve."""
        contents = [Path(name).read_bytes() for name in config.model]
        named = zip(contents, config.model, strict=True)
        models = [SentencePiece(*import_model(content, config.symbols, name)) for content, name in named]
        kind, sampling = models[0].kind, config.subword_regularization
        for name, model in zip(config.model, models, strict=True):
            if model.kind != kind:
                raise ValueError(f"{name}: a {model.kind} model, the other is {kind}: both languages need the same")
            if sampling and not model.can_sample:
                raise ValueError(f"{name}: cannot be sampled from; set data.tokenizer.subword_regularization=0")
        tokenizer = cls(kind, models[0], models[-1], sampling=sampling, lowercase=config.lowercase)
        tokenizer.files = [hashlib.sha256(content).hexdigest() for content in contents]
        return tokenizer

    def with_tags(self, tags: Sequence[str]) -> "Tokenizer":
        """Return this tokenizer with these tags in place of its own."""
        if tuple(tags) == self.tags:
            return self
        bases = [getattr(model, "base", model) for model in (self.source, self.target)]
        models = [TaggedModel(base, tags) for base in bases] if tags else bases
        sampling, target = self.subword_regularization, models[0 if self.joint else 1]
        tokenizer = Tokenizer(self.type, models[0], target, sampling=sampling, lowercase=self.lowercase)
        tokenizer.files = self.files
        return tokenizer

    def tagged(self, source: Sequence[str] = (), target: Sequence[str] = ()) -> "Tokenizer":
        """Return this tokenizer with tags that begin every source, and tags that begin every target."""
        if not self.tags:
            return self
        tokenizer = copy.copy(self)
        for name in ("source_word_id_map", "target_word_id_map"):
            tokenizer.__dict__.pop(name, None)
        bases = [getattr(model, "base", model) for model in (self.source, self.target)]
        ids = [
            [base.size + self.tags.index(tag) for tag in tags]
            for base, tags in zip(bases, (source, target), strict=True)
        ]
        tokenizer.source, tokenizer.target = (
            TaggedModel(base, self.tags, prefix) for base, prefix in zip(bases, ids, strict=True)
        )
        tokenizer.digest = self._untagged
        if any(ids):
            tokenizer.digest = hashlib.sha256(json.dumps([self._untagged, ids]).encode()).hexdigest()
        return tokenizer

    @property
    def prefixes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tags that begin every source, and those that begin every target."""
        return getattr(self.source, "prefix", ()), getattr(self.target, "prefix", ())

    @property
    def term_ids(self) -> tuple[int, int, int] | None:
        """The source ids of `TERM_TAGS`; None where sources are not annotated with terms."""
        first = self.source.size - len(TERM_TAGS)
        return (first, first + 1, first + 2) if self.tags[-3:] == TERM_TAGS else None

    @property
    def source_size(self) -> int:
        return self.source.size

    @property
    def target_size(self) -> int:
        return self.target.size

    def encode_source(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each source text."""
        return self.source.encode(self._normalize(texts))

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each target text."""
        return self.target.encode(self._normalize(texts))

    def encode_source_flat(self, texts: Sequence[str]) -> FlatIds:
        """Return the ids of all source texts in one array, and the number of ids of each."""
        return self.source.encode_flat(self._normalize(texts))

    def encode_target_flat(self, texts: Sequence[str]) -> FlatIds:
        """Return the ids of all target texts in one array, and the number of ids of each."""
        return self.target.encode_flat(self._normalize(texts))

    def encode_source_sampled(self, texts: Sequence[str], keys: Keys) -> FlatIds:
        """Return random segmentations of source texts (subword regularization) as `encode_source_flat` does, each a
        function of its text and its key alone."""
        return self.source.sample(self._normalize(texts), self.subword_regularization, keys)

    def encode_target_sampled(self, texts: Sequence[str], keys: Keys) -> FlatIds:
        """Return random segmentations of target texts, as of source texts."""
        return self.target.sample(self._normalize(texts), self.subword_regularization, keys)

    def _normalize(self, texts: Sequence[str]) -> Sequence[str]:
        if not self.lowercase:
            return texts
        parts = (self._symbols.split(text) for text in texts)  # symbols are every second one
        return ["".join(part if i % 2 else part.lower() for i, part in enumerate(row)) for row in parts]

    def decode_source(self, ids: Sequence[int]) -> str:
        """Return the text of the ids; PAD, BOS, EOS and what annotates terms are left out, and a line break becomes a
        space."""
        return _decode(self.source, self._without_terms(ids)[0])

    def decode_target(self, ids: Sequence[int], copies: Sequence[str] = ()) -> str:
        """Return the text of the ids, with `copies` for each UNK if there are any; PAD, BOS and EOS are left out, and a
        line break becomes a space."""
        return _decode(self.target, ids, copies)

    def source_subwords(self, ids: Sequence[int]) -> list[str]:
        """Return a printable name for each id."""
        return [self.source.subword(index) for index in ids]

    def target_subwords(self, ids: Sequence[int]) -> list[str]:
        """Return a printable name for each id."""
        return [self.target.subword(index) for index in ids]

    def words_to_copy(self, text: str, ids: Sequence[int]) -> list[str]:
        """Return for each id of a source text what an unknown token that attends to it becomes: its word (of a
        vocabulary of characters, its character), "" for spaces."""
        (text,) = self._normalize([text])
        model = getattr(self.source, "base", self.source)
        if isinstance(model, Vocabulary):
            copies = [""] * len(self.prefixes[0]) + [token.strip(" ") for token in model.tokens(text)]
            return [copies[place] for place in self._without_terms(ids)[1]]
        numbers = self.source_word_ids(ids)
        words = [word for word in text.split(" ") if word]
        if max(numbers, default=-1) + 1 != len(words):  # the normalization has made spaces of other characters
            words = [word for word in self.decode_source(ids).split(" ") if word]
        return [words[number] if number >= 0 else "" for number in numbers]

    def source_word_ids(self, ids: Sequence[int]) -> list[int]:
        """Return for each id the index of its word in the decoded text, as `WordIds` defines it; -1 for none."""
        return _word_ids(self.source_word_id_map, ids)

    def target_word_ids(self, ids: Sequence[int]) -> list[int]:
        """Return for each id the index of its word in the decoded text, as `WordIds` defines it; -1 for none."""
        return _word_ids(self.target_word_id_map, ids)

    def source_words(self, text: str, ids: Sequence[int]) -> list[int]:
        """Return for each id of a source text its word in the text as given, by `WordIds.in_text`; -1 for none."""
        return self._words_in_text(self.source, self.source_word_id_map, text, ids)

    def target_words(self, text: str, ids: Sequence[int]) -> list[int]:
        """Return for each id of a target text its word in the text as given, by `WordIds.in_text`; -1 for none."""
        return self._words_in_text(self.target, self.target_word_id_map, text, ids)

    def _words_in_text(self, model: TokenizerModel, word_map: WordIds, text: str, ids: Sequence[int]) -> list[int]:
        if is_blank(text):
            return [-1] * len(ids)
        if _decode(model, ids) == text:
            return _word_ids(word_map, ids)
        return word_map.in_text(text, ids, lambda words: model.encode_flat(self._normalize(words)))

    def offsets(self, source: str, source_ids: Sequence[int], target: str, target_ids: Sequence[int]) -> Offsets:
        """Return the range of characters in its text of each id of a source, and of each of a target."""
        plain, owners = self._without_terms(source_ids)
        ranges = _offsets(self.source, source, plain)
        return [ranges[owner] for owner in owners], _offsets(self.target, target, target_ids)

    def _without_terms(self, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return a source without what annotates terms, and for each id the place there of that which it belongs to."""
        owners = self.source_word_id_map.owners(np.array(ids, np.int64))
        is_own = owners == np.arange(len(ids))
        return [index for index, own in zip(ids, is_own, strict=True) if own], (is_own.cumsum() - 1)[owners].tolist()

    @cached_property
    def source_word_id_map(self) -> WordIds:
        """The map behind `source_word_ids`, for many sequences at once."""
        return WordIds(self.source.surfaces, self.term_ids)

    @cached_property
    def target_word_id_map(self) -> WordIds:
        """The map behind `target_word_ids`, for many sequences at once."""
        return self.source_word_id_map if self.joint else WordIds(self.target.surfaces)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole tokenizer in plain values (fit for a file read without pickle)."""
        state: dict[str, Any] = {
            "version": _VERSION,
            "kind": self.type,
            "sampling": self.subword_regularization,
            "lowercase": self.lowercase,
            "source": self.source.state(),
            "target": None if self.joint else self.target.state(),
        }
        more = {"files": self.files, "tags": list(self.tags)}
        return state | {name: value for name, value in more.items() if value}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "Tokenizer":
        """Return the tokenizer of a `state_dict`. Raises ValueError for anything else."""
        try:
            if state["version"] != _VERSION:
                raise ValueError(f"the tokenizer has format version {state['version']}, this program reads {_VERSION}")
            load = TOKENIZERS[state["kind"]].load
            source = load(state["source"])
            target = source if state["target"] is None else load(state["target"])
            lowercase = bool(state.get("lowercase", False))
            tokenizer = cls(state["kind"], source, target, sampling=float(state["sampling"]), lowercase=lowercase)
            tokenizer.files = list(state.get("files", ()))
            return tokenizer.with_tags(state.get("tags", ()))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not a tokenizer's state: {error!r}") from error


def _decode(model: TokenizerModel, ids: Sequence[int], copies: Sequence[str] = ()) -> str:
    surfaces = [model.surfaces[index] or b"" for index in ids]
    for place, text in zip((place for place, index in enumerate(ids) if index == UNK), copies, strict=False):
        surfaces[place] = surfaces[place].replace(SPECIAL_TOKENS[UNK].encode(), text.encode())
    content = b"".join(surfaces)
    if model.marks_start:
        content = content.removeprefix(b" ")
    # A model can put bytes together that are no character, or a line break, which would shift a file's lines.
    return content.decode("utf-8", errors="replace").replace("\n", " ")


def _offsets(model: TokenizerModel, text: str, ids: Sequence[int]) -> Ranges:
    surfaces = [model.surfaces[index] or b"" for index in ids]
    content, decoded = b"".join(surfaces), _decode(model, ids)
    has_mark = model.marks_start and content[:1] == b" "
    # how many characters have begun before each byte, and how many with it
    begun = np.cumsum([0, *(byte & 0xC0 != 0x80 for byte in content)]) - has_mark
    ends = np.cumsum([0, *map(len, surfaces)])
    places = np.stack([begun[np.minimum(ends[:-1] + 1, len(content))] - 1, begun[ends[1:]]], 1).clip(0)
    places[:, 0] = np.minimum(places[:, 0], places[:, 1])
    if len(decoded) != len(text):  # as of normalized text
        blocks = SequenceMatcher(None, decoded, text, autojunk=False).get_matching_blocks()
        edges = np.array([(a + i, b + i) for a, b, size in blocks for i in (0, size)])
        places = np.interp(places, edges[:, 0], edges[:, 1]).round().astype(int)
    return [(start, end) for start, end in places.tolist()]


def _word_ids(word_map: WordIds, ids: Sequence[int]) -> list[int]:
    words: list[int] = word_map(np.array(ids, np.int64), np.arange(len(ids)) == 0).tolist()
    return words


def _digest(kind: str, states: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256(f"{_VERSION} {kind}".encode())
    for state in states:
        content = state.get("model")
        digest.update(content if content is not None else json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()


def training_options(config: TokenizerConfig) -> dict[str, Any]:
    """Return the options that determine the result of `Tokenizer.train` on a text."""
    options = {name: value for name, value in asdict(config).items() if name != "subword_regularization"}
    plugin = OWNERS.get(("data.tokenizer.TOKENIZERS", config.type))
    return {"version": _VERSION, **options} | ({"plugin": plugin.digest} if plugin else {})
