"""Translate standard input, one sentence a line: python translate.py [--beam N] [--int8] < source.txt > target.txt"""

import argparse
import json
from pathlib import Path

LINES = 1000


def main() -> None:
    """Read, translate and write `LINES` lines at a time."""
    import ctranslate2

    folder = Path(__file__).parent
    from text import TextCodec, max_tokens, translate_lines

    manifest = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    search = manifest["search"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beam", type=int, default=search["beam_size"])
    parser.add_argument("--int8", action="store_true", help="faster, and slightly less exact")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    translator = ctranslate2.Translator(
        str(folder), device=options.device, compute_type="int8" if options.int8 else "default"
    )
    source, target = TextCodec(folder, "source"), TextCodec(folder, "target")
    names = [vocabulary(folder, side) for side in ("source", "target")]
    ids = {name: index for index, name in enumerate(names[1])}

    def translate(sources: list[list[int]]) -> list[str]:
        texts = [""] * len(sources)
        places_of: dict[int, list[int]] = {}
        for place, source_ids in enumerate(sources):
            places_of.setdefault(len(source_ids), []).append(place)
        # a call for each length: how long a translation may be is an argument of the call
        for num, places in places_of.items():
            most = max_tokens(manifest, num)
            results = translator.translate_batch(
                [[names[0][index] for index in sources[place]] for place in places],
                beam_size=options.beam,
                patience=search["patience"] if options.beam > 1 else 1,
                length_penalty=search["length_penalty"],
                min_decoding_length=0,
                max_decoding_length=most + 1,  # with the end token, which may not come
                max_input_length=0,  # by default it leaves out what is behind 1,024 tokens
                max_batch_size=4096,
                batch_type="tokens",
            )
            for place, result in zip(places, results, strict=True):
                texts[place] = target.decode([ids[name] for name in result.hypotheses[0][:most]])
        return texts

    translate_lines(source.encode, translate, manifest["max_source"], LINES)


def vocabulary(folder: Path, side: str) -> list[str]:
    """Return the names of ids in CTranslate2's own files."""
    file = folder / f"{side}_vocabulary.json"
    shared = folder / "shared_vocabulary.json"
    names: list[str] = json.loads((file if file.exists() else shared).read_text(encoding="utf-8"))
    return names


if __name__ == "__main__":
    main()
