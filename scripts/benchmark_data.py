"""Speed and memory of preparing and reading a corpus, for `scripts/benchmark.py data`. Each step is measured in a
process of its own, whose peak memory is nobody else's."""

import nmt  # noqa: F401  # isort: skip  # before torch: it decides how torch's threads wait

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece

from nmt.data import Batches, DataConfig, TokenizerConfig, load_tokenizer, prepare
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
DISTINCT = 20_000
MADE_WORDS = 1_000_000


def main(arguments: list[str]) -> None:
    """Reads the options, prints JSON, and a line for each step on standard error."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := set(given) - set(DEFAULTS):
        raise SystemExit(f"error: {', '.join(unknown)}: data takes {', '.join(DEFAULTS)}")
    for name, value in given.items():
        if not isinstance(DEFAULTS[name], str) and not (value.isdigit() and int(value)):
            raise SystemExit(f"error: {name}={value}: must be a whole number of at least 1")
    print(json.dumps(measure(given)))


def measure(options: dict[str, str]) -> dict[str, Any]:
    """All steps.

    Args:
        options: pairs; tokenizer (a kind) and its vocab_size and max_pairs; batch_tokens; batches to read; text, the
            prefix of two files to use in place of a text made here; output, a file for the JSON.
    """
    case: dict[str, Any] = dict(DEFAULTS)
    for name, value in options.items():
        case[name] = value if isinstance(DEFAULTS[name], str) else int(value)
    try:
        _tokenizer_config(case).validate()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    if case["text"]:
        del case["pairs"]  # all of the text
    with tempfile.TemporaryDirectory(prefix="nmt-data-") as folder:
        if case["text"]:
            case["languages"] = _link(case["text"], Path(folder) / "text")
        else:
            case["languages"] = ["en", "de"]
            _say(f"making {case['pairs']} pairs")
            _make(Path(folder) / "text", case["pairs"])
        result: dict[str, Any] = {**case, "load_before": os.getloadavg()[0]}
        case["folder"] = folder
        for step in STEPS:
            result[step] = _apart({**case, "step": step})
            _say(f"{step}: {json.dumps(result[step])}")
    result["load_after"] = os.getloadavg()[0]
    result["versions"] = _versions()
    if case["output"]:
        Path(case["output"]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _link(prefix: str, own: Path) -> list[str]:
    """Another name for the user's files, so that nothing is written beside them; returns the two languages."""
    found = [path for path in Path(prefix).parent.glob(f"{Path(prefix).name}.*") if path.suffix != ".gold"]
    if len(found) != 2:
        raise SystemExit(f"error: text={prefix}: two files, one for each language, are needed; there are {len(found)}")
    for path in found:
        Path(f"{own}{path.suffix}").symlink_to(path.resolve())
    return sorted(path.suffix[1:] for path in found)


def _make(prefix: Path, num: int) -> None:
    """Pairs of the built-in grammar in each of which one word on each side is exchanged for a made-up one, the
    frequencies of which fall as those of real words do: a text of any size with the long tail of real ones."""
    from nmt.data import synthetic

    rng = random.Random(0)
    seeds = prefix.parent / "seeds"
    seeds.mkdir()
    synthetic.write(seeds, seed=0, num_train=DISTINCT, num_valid=1, num_test=1, num_long=1)
    sides = [(seeds / f"train.{language}").read_text(encoding="utf-8").splitlines() for language in ("en", "de")]
    with Path(f"{prefix}.en").open("w") as source, Path(f"{prefix}.de").open("w") as target:
        for _ in range(num):
            row = int(rng.random() * DISTINCT)
            for file, lines in zip((source, target), sides, strict=True):
                words = lines[row].split(" ")
                words[int(rng.random() * len(words))] = _word(int(MADE_WORDS ** rng.random()))
                file.write(" ".join(words) + "\n")


def _word(number: int) -> str:
    syllables = []
    while number:
        number, rest = divmod(number, 80)
        syllables.append("bdfgklmnprstvzhj"[rest // 5] + "aeiou"[rest % 5])
    return "".join(syllables)


def _tokenizer_config(case: dict[str, Any]) -> TokenizerConfig:
    return TokenizerConfig(kind=case["tokenizer"], vocab_size=case["vocab_size"], max_pairs=case["max_pairs"])


def _config(case: dict[str, Any]) -> DataConfig:
    folder = Path(case["folder"])
    return DataConfig(
        kind="text",
        train=str(folder / "text"),
        source_lang=case["languages"][0],
        target_lang=case["languages"][1],
        cache=str(folder / "cache"),
        tokenizer=_tokenizer_config(case),
    )


def _tokenizer(case: dict[str, Any]) -> dict[str, Any]:
    tokenizer = load_tokenizer(_config(case))
    return {"size": tokenizer.source_size}


def _prepare(case: dict[str, Any]) -> dict[str, Any]:
    config = _config(case)
    tokenizer = load_tokenizer(config)
    begin, cpu = time.perf_counter(), time.process_time()
    corpus = prepare(config, "train", tokenizer)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "pairs": corpus.num_read,
        "pairs_per_second": round(corpus.num_read / seconds, 1),
        "cpu_seconds_per_1000_pairs": round(1000 * cpu / corpus.num_read, 5),
    }


def _floor(case: dict[str, Any]) -> dict[str, Any]:
    """What SentencePiece takes for the same text when it is called directly."""
    config = _config(case)
    tokenizer = load_tokenizer(config)
    if case["tokenizer"] not in ("unigram", "bpe"):
        return {}
    sides = [
        sentencepiece.SentencePieceProcessor(model_proto=model.state()["model"])
        for model in (tokenizer.source, tokenizer.target)
    ]
    cpu, num = 0.0, 0
    for block in _blocks(config, 50_000):
        begin = time.process_time()
        for texts, processor in zip(block, sides, strict=True):
            processor.encode(texts, return_type="numpy", num_threads=1)
        cpu += time.process_time() - begin
        num += len(block[0])
    return {"pairs": num, "cpu_seconds_per_1000_pairs": round(1000 * cpu / num, 5)}


def _blocks(config: DataConfig, num: int) -> Iterator[tuple[list[str], list[str]]]:
    for block in read_blocks(config, "train", Counter()):
        yield block
        num -= len(block[0])
        if num <= 0:
            return


def _start(case: dict[str, Any]) -> dict[str, Any]:
    """From the start of the process, the import of torch included, to the first batch."""
    config = _config(case)
    tokenizer = load_tokenizer(config)
    corpus = prepare(config, "train", tokenizer)
    batches = Batches(corpus, tokenizer, case["batch_tokens"], 1)
    next(batches.epoch(0))
    return {"seconds_to_first_batch": round(time.time() - case["started"], 2), "cpu_seconds": time.process_time()}


def _read(case: dict[str, Any]) -> dict[str, Any]:
    """Shuffled batches, made in the thread that counts them."""
    config = _config(case)
    tokenizer = load_tokenizer(config)
    corpus = prepare(config, "train", tokenizer)
    reader = Batches(corpus, tokenizer, case["batch_tokens"], 1, prefetch=0).epoch(0)
    next(reader)
    num_tokens = num_batches = padded = 0
    begin, cpu = time.perf_counter(), time.process_time()
    for batch in reader:
        num_tokens += batch.num_tokens
        padded += batch.labels.numel()
        num_batches += 1
        if num_batches == case["batches"]:
            break
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "batches": num_batches,
        "target_tokens_per_second": round(num_tokens / seconds),
        "target_tokens_per_cpu_second": round(num_tokens / cpu),
        "padding": round(1 - num_tokens / padded, 4),
    }


STEPS = {"train_tokenizer": _tokenizer, "prepare": _prepare, "encode_only": _floor, "start": _start, "read": _read}


def _apart(case: dict[str, Any]) -> dict[str, Any]:
    case["started"] = time.time()
    command = [sys.executable, str(Path(__file__)), json.dumps(case)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"error: {case['step']}: {(result.stderr.strip().splitlines() or ['no message'])[-1]}")
    row: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return row


def _one(case: dict[str, Any]) -> dict[str, Any]:
    """One step with the seconds and the memory of its process, in MiB: the peak, and what is held at its end as the
    process's own (anonymous) and as mapped files."""
    setup_process(1)
    done = STEPS[case["step"]](case)
    memory = {f"{name}_mebibytes": round(_resident(key) / 1024) for name, key in RESIDENT.items()}
    return {**done, "seconds": round(time.time() - case["started"], 1), **memory}


RESIDENT = {"peak_resident": "VmHWM", "anonymous": "RssAnon", "mapped_files": "RssFile"}


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise SystemExit("error: memory is measured through /proc, which this system does not have")


def _versions() -> dict[str, str]:
    from nmt.evaluation.evaluator import versions

    return versions()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(_one(json.loads(sys.argv[1]))))
