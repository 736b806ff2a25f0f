"""Translate the test set of convert.py with one program and print one JSON line.

    PYTHON scripts/peers/decode.py PROGRAM DIR [num_threads=2] [NAME=VALUE …]

PROGRAM: nmt, run by our Python, which takes options of its search (search.early_stopping=beam); or, run by
DIR/torch_peers/bin/python, marian, joeynmt or ctranslate2 (compute_type=int8). Beam 5, batches of 64 sentences sorted
by length, length penalty 1 (JoeyNMT: that of GNMT), subwords in and out; the first batch is translated once before.
`same` is the share of translations that equal those of nmt's last run.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

BEAM, BATCH = 5, 64

Sentences = list[list[str]]
Translate = Callable[[Sentences], Sentences]


def nmt(folder: Path, num_threads: int, options: dict[str, str]) -> Translate:
    from nmt.runtime.process import setup_process  # isort: skip  # before torch

    import torch
    import yaml

    from nmt import checkpoint, search
    from nmt.config import from_dict
    from nmt.inference.translator import Translator

    setup_process(num_threads)
    given = {name.removeprefix("search."): yaml.safe_load(value) for name, value in options.items()}
    given = {"beam_size": BEAM, "batch_size": BATCH, "length_penalty": 1.0} | given
    config = from_dict(search.SearchConfig, given, "search.")
    config.validate()
    stored = json.loads((folder / "nmt.json").read_text(encoding="utf-8"))
    translator = Translator.from_checkpoint(checkpoint.load(Path(stored["checkpoint"])), config, torch.device("cpu"))
    names, ids = stored["names"], {name: index for index, name in enumerate(stored["names"])}

    def translate(sources: Sentences) -> Sentences:
        rows = [[ids[name] for name in source] for source in sources]
        with translator.decoding():
            best = dict(search.decode(translator.model, rows, config, translator.device))
        return [[names[index] for index in best[number][0].tokens] for number in range(len(rows))]

    return translate


def marian(folder: Path, num_threads: int, options: dict[str, str]) -> Translate:
    from pymarian import Translator

    files = f"--models {folder}/model.npz --vocabs {folder}/vocab.yml {folder}/vocab.yml"
    batches = (
        f"--mini-batch {BATCH} --maxi-batch 100 --maxi-batch-sort src --workspace 1000 --cpu-threads {num_threads}"
    )
    translator = Translator(f"{files} {batches} --beam-size {BEAM} --normalize 1 --quiet --quiet-translation")
    return lambda sources: [
        line.split(" ") for line in translator.translate("\n".join(map(" ".join, sources))).split("\n")
    ]


def ctranslate2(folder: Path, num_threads: int, options: dict[str, str]) -> Translate:
    from ctranslate2 import Translator

    options = {"compute_type": "float32", **options}
    engine = Translator(str(folder / "ctranslate2"), intra_threads=num_threads, **options)
    settings = {"beam_size": BEAM, "length_penalty": 1, "max_batch_size": BATCH}
    return lambda sources: [result.hypotheses[0] for result in engine.translate_batch(sources, **settings)]


def joeynmt(folder: Path, num_threads: int, options: dict[str, str]) -> Translate:
    import torch
    import yaml
    from joeynmt.model import build_model
    from joeynmt.search import beam_search
    from joeynmt.vocabulary import Vocabulary

    torch.set_num_threads(num_threads)
    names = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    vocabulary = Vocabulary(names, SimpleNamespace(**config["data"]["special_symbols"]))
    model = build_model(config["model"], vocabulary, vocabulary).eval()
    model.decoder.output_layer.bias = torch.nn.Parameter(torch.zeros(len(names)))
    model.load_state_dict(torch.load(folder / "best.ckpt")["model_state"])

    @torch.no_grad()
    def translate(sources: Sentences) -> Sentences:
        outputs: dict[int, list[str]] = {}
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        for numbers in (order[start : start + BATCH] for start in range(0, len(order), BATCH)):
            rows, lengths, _ = vocabulary.sentences_to_ids([sources[number] for number in numbers], bos=False)
            source = torch.tensor(rows)
            mask = (source != vocabulary.pad_index).unsqueeze(1)
            memory, *_ = model(return_type="encode", src=source, src_length=torch.tensor(lengths), src_mask=mask)
            best, *_ = beam_search(model, BEAM, memory, None, mask, 2 * max(lengths) + 10, alpha=1.0)
            outputs |= zip(numbers, vocabulary.arrays_to_sentences(best.numpy()), strict=True)
        return [[name for name in outputs[number] if name != "</s>"] for number in range(len(sources))]

    return translate


PROGRAMS = {"nmt": nmt, "marian": marian, "ctranslate2": ctranslate2, "joeynmt": joeynmt}
PACKAGES = {"nmt": "torch", "marian": "pymarian"}


def main(program: str, directory: str, *arguments: str) -> None:
    """Translate and print the measurement."""
    options = dict(argument.split("=", 1) for argument in arguments)
    num_threads, folder, load = int(options.pop("num_threads", "2")), Path(directory) / "decode", os.getloadavg()[0]
    lines, reference = ((folder / f"test.{name}").read_text(encoding="utf-8") for name in ("source", "reference"))
    sources = [line.split(" ") for line in lines.split("\n")[:-1]]
    translate = PROGRAMS[program](folder, num_threads, options)
    translate(sources[:BATCH])
    start = time.perf_counter()
    outputs = translate(sources)
    seconds = time.perf_counter() - start
    import sacrebleu
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "ctranslate2" / "target.spm"))
    texts = [processor.decode_pieces(output) for output in outputs]
    if program == "nmt":
        (folder / "translations.json").write_text(json.dumps(texts), encoding="utf-8")
    ours = json.loads((folder / "translations.json").read_text(encoding="utf-8"))
    num_tokens, package = sum(len(output) + 1 for output in outputs), PACKAGES.get(program, program)
    result = {"program": " ".join([program, *(f"{name}={value}" for name, value in options.items())]), "load": load}
    result |= {"sentences/s": round(len(outputs) / seconds, 1), "target tokens/s": round(num_tokens / seconds)}
    result |= {"seconds": round(seconds, 2), "version": f"{package} {version(package)}"}
    result["BLEU"] = round(sacrebleu.corpus_bleu(texts, [reference.split("\n")[:-1]]).score, 2)
    result["same"] = round(sum(a == b for a, b in zip(texts, ours, strict=True)) / len(texts), 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
