"""SentencePiece models as data: taking over one that was trained elsewhere, and cutting one to some of its pieces."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from nmt.data.vocabulary import BOS, EOS, PAD, SPECIAL_TOKENS, UNK

_KINDS = {1: "unigram", 2: "bpe"}


def import_model(content: bytes, symbols: Sequence[str], where: str) -> tuple[bytes, str, list[str]]:
    """Return a model with our special ids, its kind (unigram or bpe) and all its symbols, which are never split.

    Its normalizer and pieces are kept. The special symbols come first, wherever they were; other control symbols, which
    no text has, are left out, and `symbols` stand at the end. Raises ValueError for a file of anything else.
    """
    from google.protobuf.message import DecodeError

    try:
        model = _parse(content)
    except DecodeError:
        model = _parse(b"")
    kind, is_usual = _KINDS.get(model.trainer_spec.model_type), model.normalizer_spec.escape_whitespaces
    if not model.pieces or kind is None or not is_usual or model.trainer_spec.treat_whitespace_as_suffix:
        raise ValueError(f"{where}: not a SentencePiece model of type unigram or bpe with U+2581 before words")
    types = type(model).SentencePiece
    pieces = [types(piece=text, score=0, type=types.CONTROL) for text in SPECIAL_TOKENS]
    pieces[UNK].type = types.UNKNOWN
    special, others = (types.CONTROL, types.UNKNOWN), {*SPECIAL_TOKENS, *symbols}
    pieces += [piece for piece in model.pieces if piece.type not in special and piece.piece not in others]
    pieces += [types(piece=symbol, score=0, type=types.USER_DEFINED) for symbol in symbols]
    for name, index in (("pad", PAD), ("unk", UNK), ("bos", BOS), ("eos", EOS)):
        setattr(model.trainer_spec, f"{name}_id", index)
        setattr(model.trainer_spec, f"{name}_piece", SPECIAL_TOKENS[index])
    return _with_pieces(model, pieces), kind, [piece.piece for piece in pieces if piece.type == types.USER_DEFINED]


def cut_model(content: bytes, used: Collection[int]) -> tuple[bytes, list[int]]:
    """Return a model that segments texts of the ids `used` as before, and the ids of its pieces, ascending.

    It has these and everything special; of bpe the pieces that are merged on the way, and of unigram the least and the
    most probable one, from which unknown characters and symbols get their score.
    """
    model = _parse(content)
    pieces, normal = model.pieces, (model.SentencePiece.NORMAL, model.SentencePiece.UNUSED)
    ids = {piece.piece: index for index, piece in enumerate(pieces) if piece.type in normal}
    scores = {text: pieces[index].score for text, index in ids.items()}
    kept = {*range(len(pieces))} - {*ids.values()} | {*used}
    if _KINDS[model.trainer_spec.model_type] == "bpe":
        kept |= {ids[text] for index in used for text in _merges(pieces[index].piece, scores) if text in ids}
    elif scores:
        kept |= {ids[choose(scores, key=scores.__getitem__)] for choose in (min, max)}
    return _with_pieces(model, [pieces[index] for index in sorted(kept)]), sorted(kept)


def _merges(piece: str, scores: Mapping[str, float]) -> Iterator[str]:
    """Yield the symbols that a piece is merged from, which are the same in every text that is encoded to it."""
    symbols = list(piece)
    yield from symbols
    while pairs := [first + second for first, second in pairwise(symbols)]:
        best = max(pairs, key=lambda pair: scores.get(pair, float("-inf")))  # of equal ones the first
        if best not in scores:
            return
        yield best
        place = pairs.index(best)
        symbols[place : place + 2] = [best]


def _parse(content: bytes) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(content)


def _with_pieces(model: Any, pieces: Sequence[Any]) -> bytes:
    changed = type(model)(pieces=pieces, trainer_spec=model.trainer_spec, normalizer_spec=model.normalizer_spec)
    changed.trainer_spec.vocab_size = len(pieces)
    return bytes(changed.SerializeToString(deterministic=True))
