"""The flags of the commands, and what to write in place of Hydra's arguments that there are not."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from nmt.cli.synonyms import flag_synonym
from nmt.config import suggest


class Flag(NamedTuple):
    """A flag, and how its value is shown in the help; "" for none, "[NODE]" for one that may be left out."""

    names: tuple[str, ...]
    value: str
    description: str

    @property
    def usage(self) -> str:
        """Return it as it is written, such as "-c, --cfg job"."""
        return f"{', '.join(self.names)} {self.value}".rstrip()


FLAGS = {
    "help": Flag(("-h", "--help"), "[NODE]", "this text, or what a node, group or option is: --help model.attention"),
    "cfg": Flag(("-c", "--cfg"), "job", "check the configuration, print it and stop; with -m that of every run"),
    "config_dir": Flag(("-cd", "--config-dir"), "DIR", "a further folder of config groups, whose files win"),
    "multirun": Flag(("-m", "--multirun"), "", "one run for every combination of the values a,b,c and those of sweep="),
    "quiet": Flag(("-q", "--quiet"), "", "only warnings and errors on standard error"),
    "version": Flag(("--version",), "", "print the version and stop"),
}
"""By the fields of `Flags`, in the order of the help."""


class Flags(NamedTuple):
    """A command line: its other arguments, and its flags. `help` is None without --help, and "" for --help alone."""

    overrides: list[str]
    help: str | None = None
    cfg: str = ""
    config_dir: str = ""
    multirun: bool = False
    quiet: bool = False
    version: bool = False


def hydra_hint(argument: str) -> str | None:
    """Return what to write in place of an argument of Hydra's."""
    hints = yaml.safe_load(Path(__file__).with_name("hydra_arguments.yaml").read_text(encoding="utf-8"))
    return next((match.expand(hints[key]) for key in hints if (match := re.fullmatch(key, argument, re.DOTALL))), None)


def read_flags(arguments: Sequence[str], command: str = "train") -> Flags:
    """Return a command line with its flags apart; raise ValueError for an unknown flag, or one without its value."""
    fields = {name: field for field, flag in FLAGS.items() for name in flag.names}
    overrides: list[str] = []
    values: dict[str, Any] = {}
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        if name not in fields or (equals and not FLAGS[fields[name]].value):
            nearest = suggest(name, fields)
            hint = hydra_hint(argument) or (f"did you mean {nearest}?" if nearest else "--help lists the flags")
            following = "".join(text for text in remaining[:1] if not text.startswith("-") and "=" not in text)
            if not hydra_hint(argument) and (sentence := flag_synonym(name, value or following, command)):
                raise ValueError(sentence)
            raise ValueError(f"{argument}: unknown flag; {hint}")
        shown = FLAGS[fields[name]].value
        if shown and not equals and remaining and not remaining[0].startswith("-") and "=" not in remaining[0]:
            value = remaining.pop(0)
        if shown.isalpha() and not value:
            raise ValueError(f"{argument}: a value is needed, as in {name} {shown}")
        values[fields[name]] = value if shown else True
    if (part := values.get("cfg", "job")) != "job":
        raise ValueError(f"--cfg {part}: only --cfg job is known, which prints every option; config=FILE reads them")
    return Flags(overrides, **values)
