"""Help texts of the commands."""

import re
from collections.abc import Sequence
from typing import Any

from nmt.cli.commands import SUMMARIES as SUMMARIES
from nmt.cli.config_groups import SWEEP
from nmt.cli.flags import FLAGS
from nmt.cli.help_topics import topic_text
from nmt.cli.options import Option, collect_options
from nmt.cli.sweep.jobs import SweepOptions
from nmt.config import leaves

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
        *("model.attention.normalizer", "model.attention.window", "model.decoder", "model.match"),
        *("optim.learning_rate", "train.max_updates", "train.max_epochs", "train.max_minutes", "train.batch_tokens"),
        *("train.devices", "train.valid_every", *_SEARCH, *_MACHINE),
    ),
    "evaluate": (
        *("checkpoint", "data.test", "output", *_SEARCH, "metrics.names", "hypotheses", "baselines", "external_scores"),
        *_MACHINE,
    ),
    "translate": (
        *("checkpoint", "input", "output", "format", "input_format", "markup", "placeholders", "glossary", "reverse"),
        *("target_lang", "max_length", *_SEARCH, "search.method", "search.n_best", *_MACHINE),
    ),
    "align": (
        *("checkpoint", "source", "target", "gold", "reverse", "symmetrize", "output", "formats"),
        *("markup", "alignment.layer", "alignment.head", "alignment.decision", *_MACHINE),
    ),
    "score": ("checkpoint", "source", "target", "reverse", "rerank", "format", "output", *_MACHINE),
    "export": ("checkpoint", "format", "output", "max_length", "search.beam_size", "num_threads"),
    "trim": ("checkpoint", "text", "output"),
    "clean": (
        *("source", "target", "source_lang", "target_lang", "output", "tests", "checkpoint", "reverse"),
        *("filters.language.min", "filters.lexical.min", "filters.truncation.max", "filters.numbers.dry", *_MACHINE),
    ),
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
    "translate": (
        "python -m nmt.translate checkpoint=runs/my_run < source.txt > target.txt",
        "python -m nmt.translate checkpoint=runs/my_run input=source.txt.gz output=target.txt.gz",
    ),
    "align": (
        "python -m nmt.align checkpoint=runs/en_de source=a.en target=a.de gold=a.gold",
        "python -m nmt.align checkpoint=runs/en_de reverse=runs/de_en source=a.en target=a.de output=DIR",
    ),
    "score": ("python -m nmt.score checkpoint=runs/en_de source=a.en target=a.de output=scores.txt",),
    "export": (
        "python -m nmt.export checkpoint=runs/my_run format=ctranslate2 output=exported",
        "python -m nmt.export checkpoint=runs/my_run format=onnx output=graphs search.beam_size=8",
    ),
    "trim": ("python -m nmt.trim checkpoint=runs/en_de text=[a.en,a.de] output=small.pt",),
    "clean": (
        "python -m nmt.clean source=web.en.gz target=web.de.gz output=clean tests=[DIR/test]",
        "python -m nmt.clean source=a.en target=a.de output=clean 'filters={numbers: {dry: true}, script: {min: 0.8}}'",
    ),
    "serve": (
        "python -m nmt.serve checkpoint=runs/my_run",
        "python -m nmt.serve checkpoint=[runs/additive,runs/dot] port=8080",
    ),
}


def help_text(name: str, config: Any, choices: dict[str, list[str]], sweeps: list[str], topic: str = "") -> str:
    """Return the help text of a command, with the choices of its groups and the names of sweeps.

    With a topic, such as "model.attention", the text about it alone; see `nmt.cli.help_topics`.
    """
    if topic:
        return topic_text(name, config, {**choices, SWEEP: sweeps}, topic)
    lines = [f"usage: python -m nmt.{name} [name=value …]", "", SUMMARIES[name]]
    if choices:
        lines += ["", "Config groups:"]
        for group, names in choices.items():
            lines += [f"  {group}={{{','.join(names)}}}", f"      {GROUP_LINES[group]}"]
    lines += ["", "Most used options (--help data, --help model.attention and so on explain all of them):"]
    lines += _option_lines(collect_options(config, OPTIONS[name]), OPTIONS[name])
    lines += [
        "",
        "Flags:",
        *(f"  {flag.usage:21}  {flag.description}" for flag in FLAGS.values()),
        "",
        "With -m:",
        *_option_lines(collect_options(SweepOptions()), SWEEP_OPTIONS),
        f"      sweep={{{','.join(sweeps)}}}",
        "",
        "A folder configs/ in the working directory may add to the groups, for example configs/experiment/mine.yaml.",
        "",
        "Examples:",
        *(f"  {example}" for example in EXAMPLES[name]),
    ]
    return "\n".join(lines)


def _option_lines(options: dict[str, Option], names: Sequence[str]) -> list[str]:
    """Return options with the first clause of their explanations, or of the names that may be chosen."""
    lines = []
    for name in names:
        clause, values = re.split(r"[.:;](?: |$)", options[name].text)[0], options[name].choices
        named = f" ({', '.join(values)})" if values not in ((), ("true", "false")) else ""
        lines.append(f"  {name:{max(map(len, names))}}  {clause}{named}")
    return lines
