"""Tokenizers as files that do not need this project: SentencePiece models, or lists of words or characters."""

import json
from pathlib import Path

from nmt.data import Tokenizer
from nmt.data.vocabulary import SPECIAL_TOKENS, TokenizerModel

SIDES = ("source", "target")


def write_vocabularies(tokenizer: Tokenizer, folder: Path) -> None:
    """Write source.spm and target.spm, or source.json and target.json (lists of the entries in the order of ids).

    The two files are equal when the languages share a vocabulary.
    """
    for side, model in zip(SIDES, (tokenizer.source, tokenizer.target), strict=True):
        state = model.state()
        if "model" in state:
            (folder / f"{side}.spm").write_bytes(state["model"])
        else:
            entries = json.dumps(pieces(getattr(model, "base", model)), ensure_ascii=False, indent=0)
            (folder / f"{side}.json").write_text(entries, encoding="utf-8")


def pieces(model: TokenizerModel) -> list[str]:
    """Return the string of every id: the special tokens, SentencePiece's pieces, or words, or characters, then tags."""
    state, tags = model.state(), getattr(model, "tags", ())
    if "model" not in state:
        return [*SPECIAL_TOKENS, *state["items"], *tags]
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=state["model"])
    return [*(processor.id_to_piece(index) for index in range(processor.get_piece_size())), *tags]


def unique_names(model: TokenizerModel) -> list[str]:
    """Return the pieces, with a mark added to repeated ones: a word of the text may be "<s>"."""
    distinct: dict[str, None] = {}
    for piece in pieces(model):
        while piece in distinct:
            piece += "\N{COMBINING LOW LINE}"
        distinct[piece] = None
    return list(distinct)
