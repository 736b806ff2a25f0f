"""Subwords by SentencePiece (Kudo & Richardson, 2018): unigram (Kudo, 2018) and BPE (Sennrich et al., 2016)."""

import io
import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from nmt.data.sentencepiece_proto import cut_model
from nmt.data.subword_sampling import UNKNOWN, BPESampler, Keys, UnigramSampler, derive_keys, enumerate_groups
from nmt.data.vocabulary import BOS, EOS, PAD, SPECIAL_TOKENS, UNK, FlatIds, TokenizerModel, displayable, symbol_pattern

# The trainer silently drops every sentence with U+2585 (its mark for unknown characters), and treats NUL, tab and
# U+2581 as marks of its own. They become spaces in the training text only; encoding keeps them.
_RESERVED = str.maketrans(dict.fromkeys("\0\t▁▅", " "))
_SPACE = "▁"
# The sums over sentences are split by thread, so another number of threads may round to another vocabulary.
_TRAINER_THREADS = 4
_SURROGATES = [chr(code) for code in range(0xD800, 0xE000)]  # no text has one


class SentencePiece(TokenizerModel):
    """One trained SentencePiece model, unigram or bpe by its `kind`.

    The library writes U+2581 for a space, so a real U+2581 in a text would be decoded to a space; here it is spelled in
    bytes, which decode to it (without byte fallback it becomes UNK).
    """

    def __init__(self, model: bytes, kind: str, symbols: Sequence[str] = ()) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("the subword model is damaged: SentencePiece cannot read it") from error
        self._model, self.kind, self.symbols = model, kind, tuple(symbols)
        self.marks_start = self._processor.normalize("a").startswith(_SPACE)  # a model of others may not
        self.can_sample = self.marks_start and len(symbols) <= len(_SURROGATES) and _SPACE not in "".join(symbols)
        self._marks = dict(zip(symbols, _SURROGATES, strict=False))  # in place of symbols while `sample` splits words
        size = self._processor.get_piece_size()
        self._subwords: list[str] = self._processor.id_to_piece(list(range(size)))
        self.surfaces: list[bytes | None] = [self._surface(index) for index in range(size)]
        self._characters = set("".join(self._subwords))
        byte_ids = self._processor.piece_to_id([f"<0x{byte:02X}>" for byte in range(256)])
        self._byte_ids = np.array(byte_ids) if self._processor.is_byte(byte_ids[0]) else None
        self.has_unknown = self._byte_ids is None

    @classmethod
    def train(
        cls,
        texts: Sequence[str],
        *,
        kind: str,
        vocab_size: int,
        byte_fallback: bool,
        character_coverage: float,
        normalization: str,
        where: str = "the training text",
        symbols: Sequence[str] = (),
        exact_size: bool = True,
    ) -> "SentencePiece":
        """Train a model; the same texts always give the same model.

        Where they cannot yield `vocab_size` subwords it has as many as possible, or with `exact_size` ValueError is
        raised; also when they hold more characters than that.
        """
        while True:
            model = io.BytesIO()
            try:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=(text.translate(_RESERVED) for text in texts),
                    model_writer=model,
                    model_type=kind,
                    vocab_size=vocab_size,
                    character_coverage=character_coverage,
                    byte_fallback=byte_fallback,
                    normalization_rule_name=normalization,
                    remove_extra_whitespaces=normalization != "identity",
                    pad_id=PAD,
                    unk_id=UNK,
                    bos_id=BOS,
                    eos_id=EOS,
                    unk_surface=SPECIAL_TOKENS[UNK],
                    user_defined_symbols=list(symbols),
                    max_sentence_length=1 << 30,  # longer lines would be dropped silently
                    num_threads=_TRAINER_THREADS,
                    minloglevel=2,
                )
                return cls(model.getvalue(), kind, symbols)
            except RuntimeError as error:
                most = re.search(r"too high.*<= (\d+)", str(error))
                if exact_size or most is None:
                    raise ValueError(_explain_failure(str(error), kind, vocab_size, where)) from error
                vocab_size = int(most[1])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [array.tolist() for array in self._encode_arrays(texts)]

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        arrays = self._encode_arrays(texts)
        lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
        return np.concatenate([np.empty(0, np.int32), *arrays]), lengths

    def sample(self, texts: Sequence[str], strength: float, keys: Keys) -> FlatIds:
        """Sample segmentations, each a function of its text and its key (N,) alone.

        unigram: each segmentation x with probability proportional to P(x)^strength (Kudo, 2018, eq. 8, over all
        segmentations); bpe: each merge is left out with probability `strength` (Provilkov et al., 2020).
        """
        masked, mark = self._mask_space_symbol(texts)
        # Every word begins with the mark of a space, and no piece has one further inside.
        normalized = self._processor.normalize(masked)
        if self._marks:
            pattern = re.compile(symbol_pattern(self._marks))
            normalized = [pattern.sub(lambda match: self._marks[match[0]], text) for text in normalized]
        words = [text.split(_SPACE)[1:] for text in normalized]
        number_of: dict[str, int] = {}
        chosen = np.array([number_of.setdefault(word, len(number_of)) for row in words for word in row], np.int64)
        if not len(chosen):
            return np.empty(0, np.int32), np.zeros(len(texts), np.int64)
        text_of, index = enumerate_groups(np.fromiter(map(len, words), np.int64, len(words)))
        distinct = [_SPACE + word for word in number_of]
        ids, characters, owners = self._sampler.sample(distinct, chosen, strength, derive_keys(keys[text_of], index))
        owners, is_unknown = text_of[owners], ids == UNKNOWN
        if self._byte_ids is None:  # as in encoding, unknown characters next to each other are one UNK
            repeats = 1 - np.append(False, is_unknown[1:] & is_unknown[:-1] & (owners[1:] == owners[:-1]))
            ids[is_unknown] = UNK
        else:
            spelled = [chr(code).replace(mark, _SPACE).encode() for code in characters[is_unknown].tolist()]
            repeats = np.ones(len(ids), np.int64)
            repeats[is_unknown] = list(map(len, spelled))
        ids, owners = np.repeat(ids, repeats), np.repeat(owners, repeats)
        if self._byte_ids is not None:
            ids[ids == UNKNOWN] = self._byte_ids[list(b"".join(spelled))]
        return ids.astype(np.int32), np.bincount(owners, minlength=len(texts))

    @cached_property
    def _sampler(self) -> UnigramSampler | BPESampler:
        others = {UNK, *(self._byte_ids if self._byte_ids is not None else [])}
        texts = (index for index, surface in enumerate(self.surfaces) if surface is not None and index not in others)
        pieces = {self._subwords[index]: index for index in texts}
        pieces |= {mark: pieces.pop(symbol) for symbol, mark in self._marks.items()}
        scores = self._processor.get_score(list(range(self.size)))
        return UnigramSampler(pieces, scores) if self.kind == "unigram" else BPESampler(pieces, scores)

    def subword(self, index: int) -> str:
        return SPECIAL_TOKENS[index] if index < len(SPECIAL_TOKENS) else displayable(self._subwords[index])

    def state(self) -> dict[str, Any]:
        return {"model": self._model} | ({"symbols": list(self.symbols)} if self.symbols else {})

    def cut(self, used: Collection[int]) -> tuple["SentencePiece", list[int]]:
        model, ids = cut_model(self._model, used)
        return type(self)(model, self.kind, self.symbols), ids

    def _surface(self, index: int) -> bytes | None:
        if index == UNK:
            return SPECIAL_TOKENS[UNK].encode()
        if self._processor.is_control(index):
            return None
        subword = self._subwords[index]
        if self._processor.is_byte(index):
            return bytes([int(subword[3:5], 16)])
        return subword.replace(_SPACE, " ").encode()

    def _encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        masked, mark = self._mask_space_symbol(texts)
        if not masked:
            return []
        arrays: list[NDArray[np.int32]] = self._processor.encode(masked, return_type="numpy", num_threads=1)
        if mark != _SPACE and self._byte_ids is not None:
            # As text, one character for each id, so that `replace` finds the runs of byte ids.
            before, after = ("".join(map(chr, self._byte_ids[list(char.encode())])) for char in (mark, _SPACE))
            for row, text in enumerate(texts):
                if _SPACE in text:
                    ids = "".join(map(chr, arrays[row].tolist())).replace(before, after)
                    arrays[row] = np.array(list(map(ord, ids)), np.int32)
        return arrays

    def _mask_space_symbol(self, texts: Sequence[str]) -> tuple[list[str], str]:
        """Replace U+2581 by an unknown character that no text has; also return that character, or U+2581 if none has
        it."""
        if not any(_SPACE in text for text in texts):
            return list(texts), _SPACE
        used = self._characters.union(*texts)
        mark = next(chr(code) for code in range(0xF0000, 0x110000) if chr(code) not in used)
        return [text.replace(_SPACE, mark) for text in texts], mark


def _explain_failure(message: str, kind: str, vocab_size: int, where: str) -> str:
    option = f"data.tokenizer.vocab_size={vocab_size}"
    if match := re.search(r"too high.*<= (\d+)", message):
        remedy = f"write data.tokenizer.exact_size=false, or data.tokenizer.vocab_size={match[1]} at most"
        return f"{option}: more {kind} subwords than {where} can give; {remedy}"
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"{option}: too small for the characters of {where}, at least {match[1]} "
            "(or lower data.tokenizer.character_coverage)"
        )
    if "sentences_.empty()" in message:
        return f"{where} is empty: there is nothing to train a tokenizer on"
    return f"training the {kind} tokenizer on {where} failed: {' '.join(message.split())}"
