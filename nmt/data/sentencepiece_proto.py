"""SentencePiece models as files: taking over one that was trained elsewhere, and cutting one to some of its pieces."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from nmt.data.vocabulary import BOS, EOS, PAD, SPECIAL_TOKENS, UNK

_KINDS = {1: "unigram", 2: "bpe"}


def import_model(content: bytes, symbols: Sequence[str], where: str) -> tuple[bytes, str, list[str]]:
    """Return a model with our special ids, its kind (unigram or bpe) and all its symbols, which are never split.

    Its normalizer and pieces are kept. The special symbols come first, wherever they were; other control symbols, which
    no text has, are left out, and `symbols` stand at the end.

    Raises:
        ValueError: the file holds no model, or one that our tokenizers do not read; `where` names it.
    """
    model = _parse(content, where)
    kind, normalizer = _KINDS.get(model.trainer_spec.model_type), model.normalizer_spec
    if kind is None or model.trainer_spec.treat_whitespace_as_suffix or not normalizer.escape_whitespaces:
        raise ValueError(f"{where}: must be a unigram or bpe model that marks the space before a word with U+2581")
    types, old = type(model).SentencePiece, list(model.pieces)
    special = [types(piece=text, score=0, type=types.CONTROL) for text in SPECIAL_TOKENS]
    special[UNK].type = types.UNKNOWN
    kept = [
        piece for piece in old if piece.type not in (types.CONTROL, types.UNKNOWN) and piece.piece not in SPECIAL_TOKENS
    ]
    kept = [piece for piece in kept if piece.piece not in symbols]
    kept += [types(piece=symbol, score=0, type=types.USER_DEFINED) for symbol in symbols]
    return _with_pieces(model, [*special, *kept]), kind, [p.piece for p in kept if p.type == types.USER_DEFINED]


def cut_model(content: bytes, used: Collection[int]) -> tuple[bytes, list[int]]:
    """Return a model with the pieces that segment a text as before, and their ids, ascending.

    Kept besides `used`, the ids of that text: special symbols, bytes, symbols; of bpe the pieces that are merged on
    the way; of unigram the least and the most probable piece, from which unknown characters and symbols get theirs.

    Args:
        content: with our special ids.
        used: the ids that the text is encoded to.
    """
    model = _parse(content, "the subword model")
    types, pieces = type(model).SentencePiece, list(model.pieces)
    kept = {index for index, piece in enumerate(pieces) if piece.type not in (types.NORMAL, types.UNUSED)} | {*used}
    normal = {piece.piece: index for index, piece in enumerate(pieces) if piece.type in (types.NORMAL, types.UNUSED)}
    scores = {text: pieces[index].score for text, index in normal.items()}
    if _KINDS[model.trainer_spec.model_type] == "bpe":
        for index in used:
            kept.update(normal[text] for text in _merged(pieces[index].piece, scores) if text in normal)
    elif scores:
        kept.update(normal[choose(scores, key=scores.__getitem__)] for choose in (min, max))
    ids = sorted(kept)
    return _with_pieces(model, [pieces[index] for index in ids]), ids


def _merged(piece: str, scores: Mapping[str, float]) -> Iterator[str]:
    """Yield every symbol of the merges of a piece: within it they are those of a text that has it."""
    symbols = list(piece)
    yield from symbols
    while len(symbols) > 1:
        pairs = [first + second for first, second in pairwise(symbols)]
        best = max(pairs, key=lambda pair: scores.get(pair, float("-inf")))  # the leftmost of equal ones
        if best not in scores:
            return
        place = pairs.index(best)
        symbols[place : place + 2] = [best]
        yield best


def _parse(content: bytes, where: str) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        model.Clear()
    if not model.pieces:
        raise ValueError(f"{where}: not a SentencePiece model, which the .model file of spm_train is")
    return model


def _with_pieces(model: Any, pieces: Iterable[Any]) -> bytes:
    """Return the content of a model with these pieces, the first of which are our special symbols."""
    copies = [type(piece).FromString(piece.SerializeToString()) for piece in pieces]
    model.ClearField("pieces")
    model.DiscardUnknownFields()  # among them self-tests, of the former pieces
    model.pieces.extend(copies)
    spec = model.trainer_spec
    for name, index in (("pad", PAD), ("unk", UNK), ("bos", BOS), ("eos", EOS)):
        setattr(spec, f"{name}_id", index)
        setattr(spec, f"{name}_piece", SPECIAL_TOKENS[index])
    spec.vocab_size = len(copies)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
