"""The flags of the commands, and reading them from a command line."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    "package": Flag(("-p", "--package"), "NODE", "with --cfg job: only this node of it, such as model.attention"),
    "resolve": Flag(("--resolve",), "", "with --cfg job: paths with the values of environment variables"),
    "multirun": Flag(
        ("-m", "--multirun"), "", "one run for every combination of the values separated by commas or chosen by sweep="
    ),
    "quiet": Flag(("-q", "--quiet"), "", "only warnings and errors on standard error"),
    "version": Flag(("--version",), "", "print the version and stop"),
}
"""By the fields of `Flags`, in the order of the help."""

HYDRA_FLAGS = {
    "--config-path": "write --config-dir DIR, a further folder of config groups",
    "-cp": "write --config-dir DIR, a further folder of config groups",
    "--hydra-help": "write --help; docs/hydra.md says what is Hydra's here",
    "--run": "leave it out: without -m there is one run",
    "-r": "leave it out: without -m there is one run",
}
"""Flags of Hydra's that there are not, with what to write in their place."""


class Flags(NamedTuple):
    """A command line: its other arguments, and its flags.

    help: None when there is no --help, "" for --help alone, else the node, group or option after it.
    """

    overrides: list[str]
    help: str | None = None
    cfg: str = ""
    package: str = ""
    resolve: bool = False
    multirun: bool = False
    quiet: bool = False
    version: bool = False


def read_flags(arguments: Sequence[str], command: str = "train") -> Flags:
    """Return a command line with its flags apart.

    Raises:
        ValueError: a flag is unknown, lacks its value, or has none.
    """
    fields = {name: field for field, flag in FLAGS.items() for name in flag.names}
    overrides: list[str] = []
    values: dict[str, Any] = {}
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            overrides.append(argument)
        elif name not in fields:
            following = "".join(text for text in remaining[:1] if not text.startswith("-") and "=" not in text)
            if name not in HYDRA_FLAGS and (sentence := flag_synonym(name, value or following, command)):
                raise ValueError(sentence)
            nearest = suggest(name, fields)
            hint = HYDRA_FLAGS.get(name) or (f"did you mean {nearest}?" if nearest else "--help lists the flags")
            raise ValueError(f"{argument}: unknown flag; {hint}")
        elif not (flag := FLAGS[fields[name]]).value:
            if equals:
                raise ValueError(f"{argument}: {name} is written without a value")
            values[fields[name]] = True
        else:
            if not equals and remaining and not remaining[0].startswith("-") and "=" not in remaining[0]:
                value = remaining.pop(0)
            if not value and not flag.value.startswith("["):
                raise ValueError(f"{argument}: a value is needed, as in {name} {flag.value}")
            values[fields[name]] = value
    flags = Flags(overrides, **values)
    if flags.cfg not in ("", "job"):
        raise ValueError(f"--cfg {flags.cfg}: only --cfg job is known; configs/experiment/NAME.yaml is experiment=NAME")
    for field in ("package", "resolve"):
        if values.get(field) and not flags.cfg:
            raise ValueError(f"{FLAGS[field].usage}: needs --cfg job, whose output it changes")
    return flags
