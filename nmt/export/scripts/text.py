"""Lines in and out; text to ids and back, as the model was trained, with sentencepiece where there are subwords."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

PAD, UNK, BOS, EOS = 0, 1, 2, 3


class TextCodec:
    """One language's mapping between text and ids, from source.* or target.* of an exported folder.

    pieces: what stands for each id, in the model's own spelling.
    """

    def __init__(self, folder: Path, side: str) -> None:
        self.kind = json.loads((folder / "export.json").read_text(encoding="utf-8"))["tokenizer"]
        if self.kind in ("word", "char"):
            self.pieces: list[str] = json.loads((folder / f"{side}.json").read_text(encoding="utf-8"))
            self.ids = {piece: index for index, piece in enumerate(self.pieces) if index > EOS}
        else:
            import sentencepiece

            self.model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
            self.pieces = self.model.id_to_piece(list(range(self.model.get_piece_size())))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a sentence, without end token. A U+2581 is read as a space where there are subwords."""
        if self.kind == "word":
            return [self.ids.get(word, UNK) for word in text.split(" ") if word]
        if self.kind == "char":
            return [self.ids.get(character, UNK) for character in text]
        ids: list[int] = self.model.encode(text)
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the sentence; special symbols but the unknown one add nothing, and a line break becomes a space."""
        text = b"".join(self._surface(index) for index in ids if index not in (PAD, BOS, EOS))
        text = text if self.kind == "char" else text.removeprefix(b" ")
        return text.decode("utf-8", errors="replace").replace("\n", " ")

    def _surface(self, index: int) -> bytes:
        piece = self.pieces[index]
        if self.kind == "word":
            return b" " + piece.encode()
        if self.kind == "char" or index == UNK:
            return piece.encode()
        if self.model.is_byte(index):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("▁", " ").encode()


def max_tokens(manifest: dict[str, Any], num: int) -> int:
    """Return how many ids a translation of `num` ids may have at most, without end tokens, by export.json."""
    search, limit = manifest["search"], manifest["max_target"]
    most: int = math.ceil(search["max_length_ratio"] * num) + search["max_length_offset"]
    return most if limit is None else min(most, limit - 1)


def translate_lines(
    encode: Callable[[str], list[int]],
    translate: Callable[[list[list[int]]], Sequence[str]],
    max_source: int | None,
    at_once: int,
) -> None:
    """Translate standard input to standard output: one line for each, in order; empty for one without words.

    Args:
        encode: the ids of a sentence, without end token.
        translate: the translations of sentences of ids.
        max_source: ids of the longest sentence that the model can read, end token counted; None: any. A longer one has
            an empty translation, and standard error says so.
        at_once: lines that are read before they are translated.
    """
    number = 0
    # as bytes: lines end at line feeds only, whatever the locale, and what is no UTF-8 becomes U+FFFD
    while block := list(islice(sys.stdin.buffer, at_once)):
        texts, sources = [""] * len(block), {}
        for place, line in enumerate(block):
            number += 1
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", errors="replace").strip(" ")
            ids = encode(text) if text else []
            if max_source is not None and len(ids) >= max_source:
                reason = f"{len(ids):,} tokens are more than the {max_source - 1:,} that the model can read"
                print(f"line {number}: not translated: its {reason}; cut it into sentences", file=sys.stderr)
            elif text:
                sources[place] = ids
        for place, text in zip(sources, translate(list(sources.values())) if sources else [], strict=True):
            texts[place] = text
        sys.stdout.buffer.write("".join(text + "\n" for text in texts).encode("utf-8"))
        sys.stdout.buffer.flush()
