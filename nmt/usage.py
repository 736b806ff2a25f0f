"""What the commands and their users say to each other besides options: help, flags and error lines."""

import os
import sys
import traceback

from nmt.options import nearest

SUMMARIES = {
    "train": "Train a translation model and evaluate it; everything is written to runs/<name>/.",
    "evaluate": "Evaluate a trained model on a test set. What is not given comes from the checkpoint.",
    "translate": "Translate standard input, one sentence a line, to standard output.",
    "compare": "Compare runs: what was different about them.",
}

GROUP_LINES = {
    "data": "where the sentence pairs come from",
    "model": "the architecture",
    "experiment": "languages, model and training of a known task",
}

_CHECKPOINT = {"checkpoint": "run directory (its best checkpoint) or checkpoint file"}
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
        "train.batch_tokens": "size of a batch in padded tokens",
        "train.valid_every": "updates between validations",
        **_SEARCH,
        **_MACHINE,
    },
    "evaluate": {
        **_CHECKPOINT,
        "data.test": "another test set; its report goes to report-<name>/",
        "output": "folder of the report",
        **_SEARCH,
        "metrics.names": "the metrics, as a list [bleu,chrf]",
        **_MACHINE,
    },
    "translate": {**_CHECKPOINT, **_SEARCH, **_MACHINE},
}

EXAMPLES = {
    "train": (
        "python -m nmt.train",
        "python -m nmt.train data=text data.train=DIR/train data.valid=DIR/val data.test=DIR/test name=my_run",
        "python -m nmt.train model=transformer model.attention.score=additive",
        "python -m nmt.train experiment=multi30k_rnn train.max_minutes=60",
        "python -m nmt.train -m model.attention.score=additive,dot,scaled,general seed=1,2,3",
    ),
    "evaluate": (
        "python -m nmt.evaluate checkpoint=runs/my_run",
        "python -m nmt.evaluate checkpoint=runs/my_run data.test=DIR/other_set search.beam=10",
    ),
    "translate": ("python -m nmt.translate checkpoint=runs/my_run < source.txt > target.txt",),
}


def usage(name: str, choices: dict[str, list[str]]) -> str:
    """The help text of a command.

    Args:
        name: train, evaluate or translate.
        choices: for every group of the command, the names that can be chosen.
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
        "  -m, --multirun   one run for every combination of the values given with commas",
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


def tell(error: BaseException) -> None:
    """One line on standard error, after the traceback when the environment variable NMT_TRACEBACK asks for it."""
    if os.environ.get("NMT_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
