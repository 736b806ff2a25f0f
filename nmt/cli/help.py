"""Help texts of the commands."""

import re
from collections.abc import Sequence

from nmt.cli.flags import FLAGS
from nmt.cli.sweep.jobs import SweepOptions
from nmt.config import get_node, leaves, option_docs

SUMMARIES = {
    "train": "Train a translation model and evaluate it; everything is written to runs/<name>/.",
    "evaluate": "Evaluate a trained model on a test set. Options that are not given come from the checkpoint.",
    "align": "Align the words of parallel texts with a trained model, and compare with gold alignments.",
    "translate": "Translate standard input, one sentence a line, to standard output.",
    "export": "Export a trained model for other programs. --formats shows what each format supports.",
    "serve": "Serve trained models on a web page and a JSON API; see docs/serve.md.",
    "tune": "Tune options with Optuna: sample values, train, and stop bad trials early.",
    "compare": "Compare runs: scores over seeds, the significance of their differences, and costs.",
}

GROUP_LINES = {
    "data": "format of the sentence pairs",
    "model": "architecture",
    "experiment": "languages, model and training of a known task",
}

_SEARCH = ("search.beam_size", "search.batch_size")
_MACHINE = ("device", "num_threads")

OPTIONS: dict[str, tuple[str, ...]] = {
    "train": (
        *("name", "seed", "data.train", "data.valid", "data.test", "data.source_lang", "data.target_lang"),
        *("data.tokenizer.type", "data.tokenizer.vocab_size", "model.attention.score", "model.attention.heads"),
        *("model.attention.normalizer", "model.attention.window", "model.match", "optim.learning_rate"),
        *("train.max_updates", "train.max_minutes", "train.batch_tokens", "train.devices", "train.valid_every"),
        *(*_SEARCH, *_MACHINE),
    ),
    "evaluate": (
        *("checkpoint", "data.test", "output", *_SEARCH, "metrics.names", "hypotheses", "baselines", "external_scores"),
        *_MACHINE,
    ),
    "translate": ("checkpoint", "format", "max_length", *_SEARCH, "search.method", "search.n_best", *_MACHINE),
    "align": (
        *("checkpoint", "source", "target", "gold", "reverse", "symmetrize", "output", "formats"),
        *("alignment.layer", "alignment.head", "alignment.decision", *_MACHINE),
    ),
    "export": ("checkpoint", "format", "output", "max_length", "search.beam_size", "num_threads"),
    "serve": (
        *("checkpoint", "host", "port", "max_bytes", "max_sentences", "max_sentence_chars", "timeout", "queue_size"),
        *("search.beam_size", *_MACHINE),
    ),
}
"""The most used options of each command, which its help lists."""

SWEEP_OPTIONS = tuple(leaves(SweepOptions()))

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
        "python -m nmt.evaluate checkpoint=runs/my_run data.test=DIR/other_set search.beam_size=10",
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
        "python -m nmt.export checkpoint=runs/my_run format=onnx output=graphs search.beam_size=8",
    ),
    "serve": (
        "python -m nmt.serve checkpoint=runs/my_run",
        "python -m nmt.serve checkpoint=[runs/additive,runs/dot] port=8080",
    ),
}


def help_text(name: str, config: object, choices: dict[str, list[str]], sweeps: list[str]) -> str:
    """Return the help text of a command, with the choices of its groups and the names of sweeps."""
    lines = [f"usage: python -m nmt.{name} [name=value …]", "", SUMMARIES[name]]
    if choices:
        lines += ["", "Config groups:"]
        for group, names in choices.items():
            lines += [f"  {group}={{{','.join(names)}}}", f"      {GROUP_LINES[group]}"]
    lines += ["", "Most used options (--cfg job prints all of them with their values):"]
    lines += _option_lines(config, OPTIONS[name])
    lines += [
        "",
        "Flags:",
        *(f"  {flag.usage:21}  {flag.description}" for flag in FLAGS.values()),
        "",
        "With -m:",
        *_option_lines(SweepOptions(), SWEEP_OPTIONS),
        f"      sweep={{{','.join(sweeps)}}}",
        "",
        "A folder configs/ in the working directory may add to the groups, for example configs/experiment/mine.yaml.",
        "",
        "Examples:",
        *(f"  {example}" for example in EXAMPLES[name]),
    ]
    return "\n".join(lines)


def _option_lines(config: object, options: Sequence[str]) -> list[str]:
    """Return the options with the first clause of their descriptions."""
    lines = []
    for option in options:
        node, _, name = option.rpartition(".")
        description = option_docs(type(get_node(config, node)))[name]
        lines.append(f"  {option:{max(map(len, options))}}  {re.split(r'[.;](?: |$)', description)[0]}")
    return lines
