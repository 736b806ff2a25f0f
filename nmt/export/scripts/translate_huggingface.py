"""Translates standard input, one sentence a line: python translate.py [--beam N] < source.txt > target.txt"""

import argparse
import sys
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

LINES = 64


def main() -> None:
    """Reads, translates and writes so many lines at a time."""
    folder = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beam", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).to(options.device).eval()
    chosen = {} if options.beam is None else {"num_beams": options.beam}
    lines = (line.removesuffix("\n").removesuffix("\r").strip(" ") for line in sys.stdin)
    while block := list(islice(lines, LINES)):
        batch = tokenizer(block, return_tensors="pt", padding=True).to(options.device)
        with torch.inference_mode():
            found = model.generate(**batch, **chosen)
        for text in tokenizer.batch_decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False):
            print(text)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
