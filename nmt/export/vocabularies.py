"""Tokenizers as files that need nothing of this project: SentencePiece models, or lists of words or characters."""

import json
from pathlib import Path

from nmt.data import Tokenizer
from nmt.data.vocabulary import SPECIAL_TOKENS, TokenizerModel

SIDES = ("source", "target")


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """Write source.spm and target.spm, or source.json and target.json (lists of the entries in the order of ids).

    Both files are there also when the two languages share a vocabulary; they are equal then.
    """
    for side, model in zip(SIDES, (tokenizer.source, tokenizer.target), strict=True):
        state = model.state()
        if "model" in state:
            (folder / f"{side}.spm").write_bytes(state["model"])
        else:
            entries = json.dumps(pieces(model), ensure_ascii=False, indent=0)
            (folder / f"{side}.json").write_text(entries, encoding="utf-8")


def pieces(model: TokenizerModel) -> list[str]:
    """Return a name for every id: the special symbols, then the library's own pieces, or words, or characters."""
    state = model.state()
    if "model" not in state:
        return [*SPECIAL_TOKENS, *state["items"]]
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=state["model"])
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


def names(model: TokenizerModel) -> list[str]:
    """Return the pieces, with a mark where one would be the same as another: a word of the text may be called "<s>"."""
    taken: dict[str, None] = {}
    for piece in pieces(model):
        while piece in taken:
            piece += "\N{COMBINING LOW LINE}"
        taken[piece] = None
    return list(taken)
