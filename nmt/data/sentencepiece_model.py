"""Subwords by SentencePiece (Kudo & Richardson, 2018): unigram (Kudo, 2018) and BPE (Sennrich et al., 2016)."""

import io
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from nmt.data.vocabulary import BOS, EOS, PAD, SPECIAL_TOKENS, UNK, FlatIds, TokenizerModel, displayable

# The trainer silently drops every sentence with U+2585 (its mark for unknown characters), and treats NUL, tab and
# U+2581 as marks of its own. They become spaces in the training text only; encoding keeps them.
_RESERVED = str.maketrans(dict.fromkeys("\0\t▁▅", " "))
_SPACE = "▁"
_SEED_LOCK = threading.Lock()  # no other thread may set the seed between setting and using it
# The sums over sentences are split by thread, so another number of threads may round to another vocabulary.
_TRAINER_THREADS = 4


class SentencePiece(TokenizerModel):
    """One trained SentencePiece model.

    The library writes U+2581 for a space, so a real U+2581 in a text would be decoded to a space; here it is spelled in
    bytes, which decode to it (without byte fallback it becomes UNK).
    """

    marks_start = True

    def __init__(self, model: bytes) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("the subword model is damaged: SentencePiece cannot read it") from error
        self._model = model
        size = self._processor.get_piece_size()
        self._subwords: list[str] = self._processor.id_to_piece(list(range(size)))
        self.surfaces: list[bytes | None] = [self._surface(index) for index in range(size)]
        self._characters = set("".join(self._subwords))
        self._has_bytes = self._processor.is_byte(self._processor.piece_to_id("<0x00>"))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: str,
        vocab_size: int,
        byte_fallback: bool,
        character_coverage: float,
        normalization: str,
        where: str = "the training text",
    ) -> "SentencePiece":
        """Train a model; the same texts always give the same model.

        Raises ValueError when the text cannot yield `vocab_size` subwords, or holds more characters than that.
        """
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
                max_sentence_length=1 << 30,  # longer lines would be dropped silently
                num_threads=_TRAINER_THREADS,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(_explain_failure(str(error), kind, vocab_size, where)) from error
        return cls(model.getvalue())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [array.tolist() for array in self._encode_arrays(texts)]

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        arrays = self._encode_arrays(texts)
        lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
        return np.concatenate([np.empty(0, np.int32), *arrays]), lengths

    def sample(self, texts: Sequence[str], strength: float, seed: int) -> list[list[int]]:
        """Sample segmentations, a function of the texts and the seed alone.

        unigram: each segmentation x with probability proportional to P(x)^strength (Kudo, 2018, eq. 8, over all
        segmentations); bpe: each merge is left out with probability `strength` (Provilkov et al., 2020).
        """
        prepared, marks = self._mask_space_symbol(texts)
        # The generator is global to the library and each call's worker starts from the seed: one seed for each call,
        # and one thread, or the result would depend on the split among threads.
        with _SEED_LOCK:
            sentencepiece.set_random_generator_seed(seed)
            sequences: list[list[int]] = self._processor.encode(
                prepared, enable_sampling=True, alpha=strength, nbest_size=-1, num_threads=1
            )
        for index, mark in marks.items():
            sequences[index] = self._restore_space_symbol(sequences[index], mark)
        return sequences

    def subword(self, index: int) -> str:
        return SPECIAL_TOKENS[index] if index < len(SPECIAL_TOKENS) else displayable(self._subwords[index])

    def state(self) -> dict[str, Any]:
        return {"model": self._model}

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
        prepared, marks = self._mask_space_symbol(texts)
        if not prepared:
            return []
        arrays: list[NDArray[np.int32]] = self._processor.encode(prepared, return_type="numpy", num_threads=1)
        for index, mark in marks.items():
            arrays[index] = np.array(self._restore_space_symbol(arrays[index].tolist(), mark), np.int32)
        return arrays

    def _mask_space_symbol(self, texts: Sequence[str]) -> tuple[list[str], dict[int, str]]:
        """Replace U+2581 in the texts by an unknown character; also return that character by row."""
        prepared, marks = list(texts), {}
        for index, text in enumerate(prepared):
            if _SPACE in text:
                used = self._characters | set(text)
                marks[index] = next(chr(code) for code in range(0xF0000, 0xFFFFE) if chr(code) not in used)
                prepared[index] = text.replace(_SPACE, marks[index])
        return prepared, marks

    def _restore_space_symbol(self, ids: list[int], mark: str) -> list[int]:
        if not self._has_bytes:
            return ids
        # As text, one character for each id, so that `replace` finds the runs of byte ids.
        before, after = (
            "".join(chr(self._processor.piece_to_id(f"<0x{byte:02X}>")) for byte in character.encode())
            for character in (mark, _SPACE)
        )
        return list(map(ord, "".join(map(chr, ids)).replace(before, after)))


def _explain_failure(message: str, kind: str, vocab_size: int, where: str) -> str:
    option = f"data.tokenizer.vocab_size={vocab_size}"
    if match := re.search(r"too high.*<= (\d+)", message):
        return f"{option}: more {kind} subwords than {where} can give, at most {match[1]}"
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"{option}: too small for the characters of {where}, at least {match[1]} "
            "(or lower data.tokenizer.character_coverage)"
        )
    if "sentences_.empty()" in message:
        return f"{where} is empty: there is nothing to train a tokenizer on"
    return f"training the {kind} tokenizer on {where} failed: {' '.join(message.split())}"
