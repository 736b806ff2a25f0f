"""Text to ids and back, as the model was trained; needs sentencepiece where there are subwords."""

import json
from pathlib import Path

PAD, UNK, BOS, EOS = 0, 1, 2, 3


class Text:
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
        """The ids of a sentence, without end token. A U+2581 is read as a space where there are subwords."""
        if self.kind == "word":
            return [self.ids.get(word, UNK) for word in text.split(" ") if word]
        if self.kind == "char":
            return [self.ids.get(character, UNK) for character in text]
        ids: list[int] = self.model.encode(text)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The sentence; special symbols but the unknown one add nothing, and a line break becomes a space."""
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
