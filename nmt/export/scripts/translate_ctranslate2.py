"""Translate standard input, one sentence a line: python translate.py [--beam N] [--int8] < source.txt > target.txt"""

import argparse
import json
from pathlib import Path

BLOCK_LINES = 1000


def main() -> None:
    """Read, translate and write `BLOCK_LINES` lines at a time."""
    import ctranslate2
    from text import TextCodec, add_tag_options, max_tokens, translate_lines

    folder = Path(__file__).parent
    manifest = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    search = manifest["search"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beam", type=int, default=search["beam_size"])
    parser.add_argument("--int8", action="store_true", help="faster, and slightly less exact")
    parser.add_argument("--device", default="cpu")
    add_tag_options(parser, manifest)
    options = parser.parse_args()
    compute_type = "int8" if options.int8 else "default"
    translator = ctranslate2.Translator(str(folder), device=options.device, compute_type=compute_type)
    source, target = (TextCodec(folder, side, options.target_lang, options.tag) for side in ("source", "target"))
    source_names, target_names = (vocabulary(folder, side) for side in ("source", "target"))
    ids = {name: index for index, name in enumerate(target_names)}
    prefix, tags = [target_names[index] for index in target.prefix], [[target_names[index]] for index in target.tags]

    def translate(sources: list[list[int]]) -> list[str]:
        texts = [""] * len(sources)
        # one call for each length: the longest translation is an argument of the call
        for num_source in sorted({len(source_ids) for source_ids in sources}):
            indices = [index for index, source_ids in enumerate(sources) if len(source_ids) == num_source]
            max_length = max_tokens(manifest, num_source)
            results = translator.translate_batch(
                [[source_names[source_id] for source_id in sources[index]] for index in indices],
                [prefix] * len(indices) if prefix else None,
                beam_size=options.beam,
                patience=search["patience"] if options.beam > 1 else 1,
                length_penalty=search["length_penalty"],
                suppress_sequences=tags or None,
                min_decoding_length=0,
                max_decoding_length=max_length + 1,  # with the end token, which may be missing
                max_input_length=0,  # the default drops everything after 1,024 tokens
                max_batch_size=4096,
                batch_type="tokens",
            )
            for index, result in zip(indices, results, strict=True):
                texts[index] = target.decode([ids[name] for name in result.hypotheses[0][:max_length]])
        return texts

    translate_lines(source.encode, translate, manifest["max_source"], BLOCK_LINES)


def vocabulary(folder: Path, side: str) -> list[str]:
    """Return the names of the ids in CTranslate2's own files."""
    files = folder / f"{side}_vocabulary.json", folder / "shared_vocabulary.json"
    return list(json.loads(next(file for file in files if file.exists()).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
