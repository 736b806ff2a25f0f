"""Speed and memory of preparing and reading a corpus, for `scripts/benchmark.py data`.

Each step is measured in a process of its own, which gives its peak memory.
"""

import nmt  # noqa: F401  # isort: skip  # before torch: it decides how torch's threads wait

import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import sentencepiece
from benchmark_common import in_subprocess, parse, report, resident_mebibytes

from nmt.data import BatchLoader, DataConfig, Tokenizer, TokenizerConfig, load_corpus, train_or_load_tokenizer
from nmt.data.sources import read_blocks
from nmt.runtime.process import setup_process

DEFAULTS = {
    "pairs": 1_000_000,
    "tokenizer": "unigram",
    "vocab_size": 8000,
    "max_pairs": 50_000,
    "batch_tokens": 4096,
    "batches": 5000,
    "text": "",
    "output": "",
}
NUM_DISTINCT_PAIRS = 20_000
NUM_MADE_UP_WORDS = 1_000_000


def measure(arguments: list[str]) -> dict[str, Any]:
    """Return the measurements of all steps, and print a line for each on standard error.

    Options: pairs; tokenizer (its type), vocab_size and max_pairs; batch_tokens; batches to read; text, the prefix of
    two files to use instead of a synthetic text; output, a file for the JSON.
    """
    case = parse("data", arguments, DEFAULTS)
    try:
        _tokenizer_config(case).validate()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    with tempfile.TemporaryDirectory(prefix="nmt-data-") as folder:
        if case["text"]:
            del case["pairs"]  # all of the text
            case["languages"] = _link(case["text"], Path(folder) / "text")
        else:
            case["languages"] = ["en", "de"]
            report(f"generating {case['pairs']} pairs")
            _generate(Path(folder) / "text", case["pairs"])
        result: dict[str, Any] = {**case, "load_before": os.getloadavg()[0]}
        case["folder"] = folder
        for step in STEPS:
            result[step] = in_subprocess(__file__, {**case, "step": step})
            report(f"{step}: {json.dumps(result[step])}")
    result["load_after"] = os.getloadavg()[0]
    from nmt.evaluation.report_writer import package_versions  # not in the measured processes

    result["versions"] = package_versions()
    if case["output"]:
        Path(case["output"]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _link(prefix: str, linked: Path) -> list[str]:
    """Link to the user's files, so that nothing is written beside them; return the two languages."""
    files = [path for path in Path(prefix).parent.glob(f"{Path(prefix).name}.*") if path.suffix != ".gold"]
    if len(files) != 2:
        raise SystemExit(f"error: text={prefix}: two files, one for each language, are needed; there are {len(files)}")
    for path in files:
        Path(f"{linked}{path.suffix}").symlink_to(path.resolve())
    return sorted(path.suffix[1:] for path in files)


def _generate(prefix: Path, num: int) -> None:
    """Write synthetic pairs with one word on each side replaced by a made-up one, for a long tail of rare words."""
    from nmt.data import synthetic

    rng = random.Random(0)
    seeds = prefix.parent / "seeds"
    seeds.mkdir()
    synthetic.write_corpora(seeds, seed=0, num_train=NUM_DISTINCT_PAIRS, num_valid=1, num_test=1, num_long=1)
    sides = [(seeds / f"train.{language}").read_text(encoding="utf-8").splitlines() for language in ("en", "de")]
    with Path(f"{prefix}.en").open("w") as source, Path(f"{prefix}.de").open("w") as target:
        for _ in range(num):
            row = int(rng.random() * NUM_DISTINCT_PAIRS)
            for file, lines in zip((source, target), sides, strict=True):
                words = lines[row].split(" ")
                words[int(rng.random() * len(words))] = _word(int(NUM_MADE_UP_WORDS ** rng.random()))
                file.write(" ".join(words) + "\n")


def _word(number: int) -> str:
    syllables = []
    while number:
        number, rest = divmod(number, 80)
        syllables.append("bdfgklmnprstvzhj"[rest // 5] + "aeiou"[rest % 5])
    return "".join(syllables)


def _tokenizer_config(case: dict[str, Any]) -> TokenizerConfig:
    return TokenizerConfig(type=case["tokenizer"], vocab_size=case["vocab_size"], max_training_pairs=case["max_pairs"])


def _prepare(case: dict[str, Any], config: DataConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    begin, cpu = time.perf_counter(), time.process_time()
    corpus = load_corpus(config, "train", tokenizer)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "pairs": corpus.num_read,
        "pairs_per_second": round(corpus.num_read / seconds, 1),
        "cpu_seconds_per_1000_pairs": round(1000 * cpu / corpus.num_read, 5),
    }


def _encode_only(case: dict[str, Any], config: DataConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Measure SentencePiece alone on the same text."""
    if case["tokenizer"] not in ("unigram", "bpe"):
        return {}
    sides = [
        sentencepiece.SentencePieceProcessor(model_proto=model.state()["model"])
        for model in (tokenizer.source, tokenizer.target)
    ]
    cpu, num = 0.0, 0
    for block in read_blocks(config, "train", Counter()):
        begin = time.process_time()
        for texts, processor in zip(block, sides, strict=True):
            processor.encode(texts, return_type="numpy", num_threads=1)
        cpu += time.process_time() - begin
        num += len(block[0])
        if num >= 50_000:
            break
    return {"pairs": num, "cpu_seconds_per_1000_pairs": round(1000 * cpu / num, 5)}


def _start(case: dict[str, Any], config: DataConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Measure from the start of the process, including the import of torch, to the first batch."""
    batches = BatchLoader(load_corpus(config, "train", tokenizer), tokenizer, case["batch_tokens"], 1)
    next(batches.epoch(0))
    return {"seconds_to_first_batch": round(time.time() - case["started"], 2), "cpu_seconds": time.process_time()}


def _read(case: dict[str, Any], config: DataConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Read shuffled batches without prefetching."""
    corpus = load_corpus(config, "train", tokenizer)
    reader = BatchLoader(corpus, tokenizer, case["batch_tokens"], 1, prefetch=0).epoch(0)
    next(reader)
    begin, cpu = time.perf_counter(), time.process_time()
    sizes = [(batch.num_tokens, batch.labels.numel()) for batch in islice(reader, case["batches"])]
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    num_tokens, padded = (sum(column) for column in zip(*sizes, strict=True))
    return {
        "batches": len(sizes),
        "target_tokens_per_second": round(num_tokens / seconds),
        "target_tokens_per_cpu_second": round(num_tokens / cpu),
        "padding": round(1 - num_tokens / padded, 4),
    }


STEPS: dict[str, Callable[[dict[str, Any], DataConfig, Tokenizer], dict[str, Any]]] = {
    "train_tokenizer": lambda case, config, tokenizer: {"size": tokenizer.source_size},
    "prepare": _prepare,
    "encode_only": _encode_only,
    "start": _start,
    "read": _read,
}
RESIDENT = {"peak_resident": "VmHWM", "anonymous": "RssAnon", "mapped_files": "RssFile"}


def _run_step(case: dict[str, Any]) -> dict[str, Any]:
    """Run a step; return its measurements with the seconds and the memory of the process."""
    setup_process(1)
    config = DataConfig(
        format="text",
        train=f"{case['folder']}/text",
        source_lang=case["languages"][0],
        target_lang=case["languages"][1],
        cache_dir=f"{case['folder']}/cache",
        tokenizer=_tokenizer_config(case),
    )
    measurements = STEPS[case["step"]](case, config, train_or_load_tokenizer(config))
    memory = {f"{name}_mebibytes": round(resident_mebibytes(key)) for name, key in RESIDENT.items()}
    return {**measurements, "seconds": round(time.time() - case["started"], 1), **memory}


if __name__ == "__main__":
    print(json.dumps(_run_step(json.loads(sys.argv[1]))))
