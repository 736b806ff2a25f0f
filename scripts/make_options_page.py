"""Write what is derived from the options of every command: docs/options.md and the completion of `nmt` in shells.

    python scripts/make_options_page.py

The texts are those of `--help NAME`: the docstrings of the dataclasses, and what `validate` allows.
"""

import html
import re
from pathlib import Path
from typing import Any

from nmt.cli.commands import SUMMARIES
from nmt.cli.compose import GROUPS
from nmt.cli.config_groups import SWEEP, group_choices
from nmt.cli.configs import COMMANDS, PATH_OPTIONS
from nmt.cli.flags import FLAGS
from nmt.cli.help_topics import choice_text, default_text, example_command, only_text
from nmt.cli.options import Option, collect_options, node_text
from nmt.cli.sweep.jobs import SweepOptions
from nmt.training.config import EARLY_STOPPING_METRICS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/options.md"
COMPLETION = ROOT / "nmt/cli/completion.sh"
TEMPLATE = ROOT / "scripts/completion_template.sh"

INTRODUCTION = """# Options

Every option of every command, with its default, what it takes, and what it does. It is written `name=value` on the
command line, or in a file of `configs/`. The command line has the same texts: `--help model.attention` explains a node,
`--help optim.learning_rate` an option, `--help experiment=multi30k_rnn` what a choice sets. The default `null` is none.

This page is made from the code by `make options`.
"""


def options_page() -> str:
    """Return docs/options.md."""
    configs: dict[str, Any] = {command: config_class() for command, config_class in COMMANDS.items()}
    trained = collect_options(configs["train"])
    parts = [INTRODUCTION]
    for command, config in configs.items():
        parts += [f"## python -m nmt.{command}", plain(SUMMARIES[command])]
        options = collect_options(config)
        if command != "train":
            shared = [name for name, option in options.items() if is_shared(option, trained.get(name))]
            nodes = dict.fromkeys(name.rpartition(".")[0] or name for name in shared)
            options = {name: option for name, option in options.items() if name not in shared}
            links = ", ".join(f"[`{node}`](#{node})" for node in nodes)
            parts.append(f"As in training, by default those of the checkpoint where it has them: {links}.")
        parts += groups(command) + node_sections(command, config, options)
    parts += [
        "## Sweeps",
        node_text_of_sweep(),
        *entries("train", configs["train"], collect_options(SweepOptions()), ""),
    ]
    parts += groups_of([SWEEP])
    parts += ["## python -m nmt.compare", plain(SUMMARIES["compare"]), "Its flags: `python -m nmt.compare --help`."]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def is_shared(option: Option, other: Option | None) -> bool:
    """Return whether an option of a command is the one of training, its default aside for each architecture."""
    return other is not None and (option.values, option.text, [*option.defaults]) == (
        other.values,
        other.text,
        [*other.defaults],
    )


def groups(command: str) -> list[str]:
    """Return the sections of the groups of a command, which other commands share with training."""
    return groups_of(GROUPS[command]) if command == "train" else []


def groups_of(names: Any) -> list[str]:
    """Return a list of choices for each group."""
    parts = []
    for group in names:
        choices = [f"- `{group}={choice}`: {plain(choice_text(group, choice))}" for choice in group_choices(group)]
        parts.append(f'<a id="{group}="></a>Choices of `{group}=`:\n\n' + "\n".join(choices))
    return parts


def node_sections(command: str, config: Any, options: dict[str, Option]) -> list[str]:
    """Return the options of a command under the headings of their nodes."""
    parts = []
    nodes = list(dict.fromkeys(name.rpartition(".")[0] for name in options))
    tops = ["", *(node.partition(".")[0] for node in nodes)]
    for node in sorted(nodes, key=lambda node: tops.index(node.partition(".")[0])):
        inside = {name: option for name, option in options.items() if name.rpartition(".")[0] == node}
        if node:
            text, anchor = node_text(config, node), node if command == "train" else f"{command}.{node}"
            parts += [f'<a id="{anchor}"></a>\n\n### {node}', plain(text[:1].upper() + text[1:])]
        parts += entries(command, config, inside, "" if command == "train" else f"{command}.")
    return parts


def entries(command: str, config: Any, options: dict[str, Option], prefix: str) -> list[str]:
    """Return one list item for each option."""
    lines = []
    for name, option in options.items():
        heading = f"**`{name}`**{plain(only_text(option))}, default {plain(default_text(option))}"
        texts = [f'<a id="{prefix}{name}"></a>{heading}', f"*{plain(option.values)}*", plain(option.text)]
        if option.example:
            texts.append(f"`{example_command(command, config, option.example)}`")
        lines.append("- " + "\\\n  ".join(texts))
    return ["\n".join(lines)]


def node_text_of_sweep() -> str:
    """Return what the options of a sweep are."""
    return (
        "Options of several runs by one command, beside `-m`: `python -m nmt.train -m seed=1,2,3 launcher=processes`."
    )


def plain(text: str) -> str:
    """Return a text that Markdown shows as it is, but for code between backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*|])", r"\\\1", html.escape(part, False)) for part in parts
    )


def completion_script() -> str:
    """Return nmt/cli/completion.sh."""
    cases = [f"    {command}) echo '{chr(10).join(completions(command))}' ;;\n" for command in COMMANDS]
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("    @arguments@\n", "".join(cases)).replace("@commands@", ",".join(SUMMARIES))
    return text.replace("@metrics@", ",".join(EARLY_STOPPING_METRICS))


def completions(command: str) -> list[str]:
    """Return the arguments of a command: `option=` with its values, separated by commas, and the flags."""
    options = collect_options(COMMANDS[command]()) | collect_options(SweepOptions())
    values = {name: "<file>" if name in PATH_OPTIONS else ",".join(option.choices) for name, option in options.items()}
    values |= {"config": "<file>"} if command == "train" else {}
    values |= {group: ",".join(group_choices(group)) for group in (*GROUPS[command], SWEEP)}
    return [f"{name}={text}" for name, text in values.items()] + [flag.names[-1] for flag in FLAGS.values()]


if __name__ == "__main__":
    PAGE.write_text(options_page(), encoding="utf-8")
    COMPLETION.write_text(completion_script(), encoding="utf-8")
