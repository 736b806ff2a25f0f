"""What the commands and their users say to each other besides options: help, flags and error lines."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

from nmt.options import nearest

SUMMARIES = {
    "train": "Train a translation model and evaluate it; everything is written to runs/<name>/.",
    "evaluate": "Evaluate a trained model on a test set. What is not given comes from the checkpoint.",
    "align": "Align words of given texts with a trained model, and compare with gold alignments.",
    "translate": "Translate standard input, one sentence a line, to standard output.",
    "export": "Write a trained model as a folder that other programs run. --formats shows what each format can carry.",
    "serve": "A page to try trained models on, and the same as JSON; see docs/serve.md.",
    "compare": "Compare runs: scores over seeds, what is certain about their differences, and what they cost.",
}

GROUP_LINES = {
    "data": "where the sentence pairs come from",
    "model": "the architecture",
    "experiment": "languages, model and training of a known task",
}

_CHECKPOINT = {"checkpoint": "run directory (its best checkpoint) or checkpoint file"}
_CHECKPOINTS = {"checkpoint": f"{_CHECKPOINT['checkpoint']}; a list [a,b] is an ensemble"}
_SEARCH = {
    "search.beam": "hypotheses kept at every step",
    "search.batch_size": "sentences decoded together",
}
_MACHINE = {"device": "auto, cpu, cuda or cuda:N", "threads": "processor threads; 0 is torch's own choice"}
_FILES = {
    "data.train": "training text: a prefix, file or split, or a list [a,b]",
    "data.valid": "validation text",
    "data.test": "test text",
    "data.source_lang": "source language, the suffix of its files",
    "data.target_lang": "target language",
}

OPTIONS = {
    "train": {
        "name": "run directory inside runs/; made from the options when not given",
        "seed": "rules all randomness",
        **_FILES,
        "data.tokenizer.kind": "unigram, bpe, word or char",
        "data.tokenizer.vocab_size": "size of the vocabulary",
        "model.attention.score": "compatibility function of the attention, a list with one a head, or none",
        "model.attention.heads": "how many compare at once",
        "model.attention.normaliser": "softmax, sparsemax, entmax15 or top_k",
        "model.attention.window": "global, local_m or local_p",
        "model.match": "parameters or flops: as large as the same model with score=scaled",
        "optim.learning_rate": "highest learning rate",
        "train.max_updates": "end after so many updates",
        "train.max_minutes": "end after so many minutes; 0 is no limit",
        "train.batch_tokens": "size of a batch in padded tokens, or auto: as large as the memory holds",
        "train.devices": "processes that share every batch, each on its own device",
        "train.valid_every": "updates between validations",
        **_SEARCH,
        **_MACHINE,
    },
    "evaluate": {
        **_CHECKPOINTS,
        "data.test": "another test set; its report goes to report-<name>/",
        "output": "folder of the report; an ensemble needs one",
        **_SEARCH,
        "metrics.names": "the metrics, as a list [bleu,chrf]",
        "hypotheses": "file of translations to judge in the place of the model's own",
        "baselines": "runs or files of translations to compare with, as a list [a,b]",
        "outside": "scores of other programs, as a list [comet:FILE]",
        **_MACHINE,
    },
    "translate": {
        **_CHECKPOINTS,
        "format": "text, or jsonl with scores, alignments and search.num_best translations",
        "max_length": "source tokens beyond which a line is translated in parts",
        **_SEARCH,
        "search.method": "beam, sample or mbr",
        "search.num_best": "translations of each line, for format=jsonl",
        **_MACHINE,
    },
    "align": {
        **_CHECKPOINT,
        "source": "source text; without it the run's test set",
        "target": "its translation",
        "gold": "word alignments to compare with",
        "reverse": "run of the other direction, whose links are joined with these",
        "symmetrize": "intersection, union, grow-diag, grow-diag-final or grow-diag-final-and",
        "output": "folder for the files",
        "formats": "kinds of files, as a list [pharaoh,npz,jsonl,parquet]",
        "alignment.layer": "auto, mean or a number counted from 1",
        "alignment.head": "auto, mean or a number counted from 1",
        "alignment.links": "auto, argmax or threshold",
        **_MACHINE,
    },
    "export": {
        **_CHECKPOINT,
        "format": "ctranslate2, huggingface or onnx",
        "output": "folder to be made; an earlier export there is replaced",
        "longest": "tokens of the longest sentence that ctranslate2 and huggingface can take",
        "search.beam": "hypotheses that the exported model keeps",
        "threads": _MACHINE["threads"],
    },
    "serve": {
        "checkpoint": "run directory (its best checkpoint) or checkpoint file; a list [a,b] stands side by side",
        "host": "address to listen at; any but this machine's own lets others in",
        "port": "0 is a free one",
        "max_bytes": "size of a request at most",
        "max_lines": "sentences of a request at most",
        "max_characters": "characters of a sentence at most",
        "max_seconds": "seconds from a request to its answer at most",
        "max_waiting": "requests that wait while one is worked on, at most",
        "search.beam": _SEARCH["search.beam"],
        **_MACHINE,
    },
}

SWEEP_OPTIONS = {
    "sweep": "a named set of values, or a list [a,b] of them",
    "launcher": "serial, processes (several at a time on this machine) or slurm",
    "jobs": "processes and slurm: how many at a time; 0 is one for each GPU or core",
    "slurm": "what a job asks for, as {partition: NAME, timeout_min: 240, gpus_per_node: 1}",
}

EXAMPLES = {
    "train": (
        "python -m nmt.train",
        "python -m nmt.train data=text data.train=DIR/train data.valid=DIR/val data.test=DIR/test name=my_run",
        "python -m nmt.train model=transformer model.attention.score=additive",
        "python -m nmt.train experiment=multi30k_rnn train.max_minutes=60",
        "python -m nmt.train -m model.attention.score=additive,dot,scaled,general seed=1,2,3",
        "python -m nmt.train -m sweep=attention seed=1,2,3 launcher=processes jobs=2",
    ),
    "evaluate": (
        "python -m nmt.evaluate checkpoint=runs/my_run",
        "python -m nmt.evaluate checkpoint=runs/my_run data.test=DIR/other_set search.beam=10",
        "python -m nmt.evaluate -m sweep=beam checkpoint=runs/my_run",
        "python -m nmt.evaluate checkpoint=runs/my_run baselines=[runs/other] metrics.names=[bleu,chrf,ter]",
    ),
    "translate": ("python -m nmt.translate checkpoint=runs/my_run < source.txt > target.txt",),
    "align": (
        "python -m nmt.align checkpoint=runs/en_de source=a.en target=a.de gold=a.gold",
        "python -m nmt.align checkpoint=runs/en_de reverse=runs/de_en source=a.en target=a.de output=DIR",
    ),
    "export": (
        "python -m nmt.export checkpoint=runs/my_run format=ctranslate2 output=exported",
        "python -m nmt.export checkpoint=runs/my_run format=onnx output=graphs search.beam=8",
    ),
    "serve": (
        "python -m nmt.serve checkpoint=runs/my_run",
        "python -m nmt.serve checkpoint=[runs/additive,runs/dot] port=8080",
    ),
}


def usage(name: str, choices: dict[str, list[str]], sweeps: list[str]) -> str:
    """The help text of a command.

    Args:
        name: of the command.
        choices: for every group of the command, the names that can be chosen.
        sweeps: the names of sweeps.
    """
    lines = [f"usage: python -m nmt.{name} [name=value …]", "", SUMMARIES[name]]
    if choices:
        lines += ["", "Groups (a named set of values each):"]
        for group, names in choices.items():
            lines.append(f"  {group}={{{','.join(names)}}}")
            lines.append(f"      {GROUP_LINES[group]}")
    lines += ["", "Options most used (--cfg job prints all of them with their values):"]
    width = max(map(len, OPTIONS[name]))
    lines += [f"  {option:{width}}  {line}" for option, line in OPTIONS[name].items()]
    lines += [
        "",
        "Flags:",
        "  -h, --help       this text",
        "  -c, --cfg job    print the whole configuration and stop",
        "  -m, --multirun   one run for every combination of the values given with commas, or named by sweep=",
        "",
        "With -m:",
        *(f"  {option:{width}}  {line}" for option, line in SWEEP_OPTIONS.items()),
        f"      sweep={{{','.join(sweeps)}}}",
        "",
        "A folder configs/ in the working directory may hold further named sets, such as configs/experiment/mine.yaml.",
        "",
        "Examples:",
        *(f"  {example}" for example in EXAMPLES[name]),
    ]
    return "\n".join(lines)


def read_flags(arguments: list[str]) -> tuple[list[str], set[str]]:
    """The `name=value` arguments and the names of the flags among the command line."""
    names = {"-h": "help", "--help": "help", "-m": "multirun", "--multirun": "multirun"}
    overrides, flags = [], set()
    rest = iter(arguments)
    for argument in rest:
        if argument in names:
            flags.add(names[argument])
        elif argument in ("-c", "--cfg") or argument.startswith("--cfg="):
            what = argument.partition("=")[2] if "=" in argument else next(rest, "")
            if what != "job":
                raise ValueError(f"{argument}: only --cfg job is known, which prints the whole configuration")
            flags.add("cfg")
        elif argument.startswith("-"):
            near = nearest(argument, [*names, "--cfg"])
            raise ValueError(
                f"{argument}: unknown flag; "
                + (f"did you mean {near}?" if near else "there are --help, --cfg job and -m")
            )
        else:
            overrides.append(argument)
    return overrides, flags


def one_line(error: BaseException) -> str:
    """An exception as one sentence for the user."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def leave_output() -> None:
    """After BrokenPipeError: the reader of our output, such as `head`, has seen enough, which is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """The end of a command: a user's mistake is told in one line.

    Raises:
        SystemExit: 1 after a ValueError or OSError, 130 when interrupted. Any other exception is a defect and passes.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        leave_output()
    except (ValueError, OSError) as error:
        tell(error)
        raise SystemExit(1) from None


def tell(error: BaseException) -> None:
    """One line on standard error, after the traceback when the environment variable NMT_TRACEBACK asks for it."""
    if os.environ.get("NMT_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
