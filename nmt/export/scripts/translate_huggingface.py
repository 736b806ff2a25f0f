"""Translate standard input, one sentence a line: python translate.py [--beam N] < source.txt > target.txt"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

BLOCK_LINES = 64


def main() -> None:
    """Read, translate and write `BLOCK_LINES` lines at a time."""
    from text import add_tag_options, tag_ids, translate_lines

    folder = Path(__file__).parent
    manifest = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beam", type=int, help="default: as in generation_config.json")
    parser.add_argument("--device", default="cpu")
    add_tag_options(parser, manifest)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).to(options.device).eval()
    beam = {} if options.beam is None else {"num_beams": options.beam}
    source, target = (tag_ids(manifest, side, options.target_lang, options.tag) for side in ("source", "target"))
    start = torch.tensor([[model.config.decoder_start_token_id, *target]], device=options.device)

    def encode(text: str) -> list[int]:
        return [*source, *tokenizer(text, verbose=False)["input_ids"][:-1]]

    def translate(sources: list[list[int]]) -> list[str]:
        inputs = {"input_ids": [[*ids, tokenizer.eos_token_id] for ids in sources]}
        batch = tokenizer.pad(inputs, return_tensors="pt").to(options.device)
        with torch.inference_mode():
            begun = {"decoder_input_ids": start.expand(len(sources), -1)} if target else {}
            outputs = model.generate(**batch, **beam, **begun)
        return list(tokenizer.batch_decode(outputs, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    translate_lines(encode, translate, manifest["max_source"], BLOCK_LINES)


if __name__ == "__main__":
    main()
