"""Text to ids and back as in training (subwords need sentencepiece), and translation of standard input."""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

PAD, UNK, BOS, EOS = 0, 1, 2, 3
VOCABULARIES = ("word", "char", "pretokenized")
_INVISIBLE = re.compile(
    "[\\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*"
)


class TextCodec:
    """The mapping between text and ids of one side, from source.* or target.* of an exported folder.

    pieces: the string of each id, in the model's own spelling; the tags come last.
    tags: the ids of these, which a translation does not have but in its prefix.
    prefix: the tags that begin every text of this side, see `tag_ids`.
    """

    def __init__(self, folder: Path, side: str, target_lang: str | None = None, tag: str | None = None) -> None:
        manifest = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.kind, self.prefix = manifest["tokenizer"], tag_ids(manifest, side, target_lang, tag)
        if self.kind in VOCABULARIES:
            self.pieces: list[str] = json.loads((folder / f"{side}.json").read_text(encoding="utf-8"))
            self.ids = {piece: index for index, piece in enumerate(self.pieces) if index > EOS}
            symbols = sorted((piece for piece in self.ids if self.kind == "char" and piece[1:]), key=len, reverse=True)
            self.character = re.compile("|".join([*map(re.escape, symbols), "."]), re.DOTALL)
        else:
            import sentencepiece

            self.model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
            self.pieces = self.model.id_to_piece(list(range(self.model.get_piece_size())))
        self.num_pieces = len(self.pieces)
        self.pieces += manifest.get("tags", {"names": []})["names"]
        self.tags = range(self.num_pieces, len(self.pieces))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a sentence after `prefix`, without end token. With subwords, U+2581 is read as a space."""
        if self.kind in VOCABULARIES:
            words = text.split(" ") if self.kind == "pretokenized" else filter(None, text.split(" "))
            tokens = self.character.findall(text) if self.kind == "char" else words
            return [*self.prefix, *(self.ids.get(token, UNK) for token in tokens)]
        return [*self.prefix, *self.model.encode(text)]

    def decode(self, ids: list[int]) -> str:
        """Return the sentence; tags and special tokens but the unknown one are dropped, line breaks become spaces."""
        text = b"".join(
            self._surface(index) for index in ids if index < self.num_pieces and index not in (PAD, BOS, EOS)
        )
        text = text if self.kind == "char" else text.removeprefix(b" ")
        return text.decode("utf-8", errors="replace").replace("\n", " ")

    def _surface(self, index: int) -> bytes:
        piece = self.pieces[index]
        if self.kind in VOCABULARIES or index == UNK:
            return f"{' ' if self.kind in ('word', 'pretokenized') else ''}{piece}".encode()
        if self.model.is_byte(index):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("▁", " ").encode()


def tag_ids(manifest: dict[str, Any], side: str, target_lang: str | None, tag: str | None) -> list[int]:
    """Return the ids that begin every text of a side: the tag of a target language (None: the default), and a tag."""
    if "tags" not in manifest or side != manifest["tags"]["side"]:
        return []
    names, known = manifest["tags"]["names"], (manifest["target languages"], manifest["tags"]["corpora"])
    for option, value, allowed in zip(("target_lang", "tag"), (target_lang, tag), known, strict=True):
        if value is not None and value not in allowed:
            raise ValueError(f"{option}={value}: must be one of {', '.join(allowed) or 'none'}")
    wanted = [f"<2{target_lang or manifest['target language']}>", f"<{tag}>"]
    return [manifest["vocabulary"][side] - len(names) + names.index(name) for name in wanted if name in names]


def add_tag_options(parser: argparse.ArgumentParser, manifest: dict[str, Any]) -> None:
    """Add the options --target-lang and --tag where the model has such a choice."""
    parser.set_defaults(target_lang=None, tag=None)
    languages, tags = manifest.get("target languages", []), manifest.get("tags", {"corpora": []})["corpora"]
    if len(languages) > 1:
        parser.add_argument("--target-lang", choices=languages, help=f"default: {manifest['target language']}")
    if tags:
        parser.add_argument("--tag", choices=tags, help="write text as of the corpus with this tag")


def max_tokens(manifest: dict[str, Any], num_source: int) -> int:
    """Return how many ids a translation of so many may have, without end tokens, as export.json says."""
    search, limit = manifest["search"], manifest["max_target"]
    num: int = math.ceil(search["max_length_ratio"] * num_source) + search["max_length_offset"]
    return num if limit is None else min(num, limit - 1)


def translate_lines(
    encode: Callable[[str], list[int]],
    translate: Callable[[list[list[int]]], Sequence[str]],
    max_source: int | None,
    block_size: int,
) -> None:
    """Translate standard input to standard output, `block_size` lines at a time; a blank line gives an empty one.

    Ids are without end token, which `max_source` includes. A sentence of more ids has an empty translation, and is
    reported on standard error.
    """
    number = 0
    # as bytes: lines end at line feeds only, whatever the locale, and invalid UTF-8 becomes U+FFFD
    while block := list(islice(sys.stdin.buffer, block_size)):
        texts, sources = [""] * len(block), {}
        for index, line in enumerate(block):
            number += 1
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", errors="replace")
            text = text.removeprefix("\ufeff") if number == 1 else text
            text = "" if _INVISIBLE.fullmatch(text) else text.strip(" ")
            ids = encode(text) if text else []
            if max_source is not None and len(ids) >= max_source:
                reason = f"{len(ids):,} tokens are more than the {max_source - 1:,} that the model can read"
                print(f"line {number}: not translated: its {reason}; cut it into sentences", file=sys.stderr)
            elif text:
                sources[index] = ids
        for index, text in zip(sources, translate(list(sources.values())) if sources else [], strict=True):
            texts[index] = text
        sys.stdout.buffer.write("".join(text + "\n" for text in texts).encode("utf-8"))
        sys.stdout.buffer.flush()
