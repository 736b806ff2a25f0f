"""Hydra's composition of config groups, from a source that keeps the text and the place of every value."""

import functools
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose, initialize
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nmt.cli.config_groups import FileOption, find_file, group_choices, read_file, registered_choice, search_path
from nmt.cli.flags import hydra_hint
from nmt.config import flatten
from nmt.runtime.logs import log_to_stderr

log = logging.getLogger(__name__)


def compose_groups(command: str, choices: Sequence[str]) -> tuple[dict[str, FileOption], list[Path]]:
    """Return the options of a command's groups by their full names, and the files that were read.

    Args:
        command: whose defaults list in `configs/` names its groups.
        choices: other choices, as `group=choice`.

    Raises:
        ValueError: in one line, naming the file where it is known.
    """
    _GroupFiles.options.clear()
    _GroupFiles.files.clear()
    try:
        with initialize(config_path=None, version_base="1.3"):
            tree: dict[str, Any] = OmegaConf.to_container(compose(command, list(choices)))  # type: ignore[assignment]
    except RecursionError:
        raise ValueError(f"{[*_GroupFiles.files.values()][-1]}: its defaults list leads back to itself") from None
    except (HydraException, OmegaConfBaseException) as error:
        message = str(error).replace(":\n", ": ").partition("\n")[0]
        match = re.match(r"In '?(.+?)'?: (.*)", message)
        where = _GroupFiles.files.get(match[1] if match else command, "configs")
        hint = "; begin its defaults list with train, which has it" if "No match" in message and not match else ""
        raise ValueError(f"{where}: {match[2] if match else message}{hint}") from error
    options = {path: _GroupFiles.options[number] for path, number in flatten(tree).items()}
    return options, list(_GroupFiles.files.values())


def sweep_values(override: Override) -> Iterable[str]:
    """Return the values of an override in Hydra's grammar: a,b,c, choice(), range() or glob() of a group's choices."""
    value = override.value()
    if not isinstance(value, Glob):
        return override.sweep_string_iterator()
    if names := value.filter(group_choices(override.key_or_group)):
        return names
    raise HydraException(f"nothing in {override.key_or_group} matches")


def search_space(text: str) -> tuple[str, dict[str, Any]] | None:
    """Return the name and arguments of Optuna's distribution for a sweep, or None; raise ValueError."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:  # plain text, which training reads or reports
        return None
    sweep: Any = override.value()
    if override.is_choice_sweep():
        return "CategoricalDistribution", {"choices": list(sweep_values(override))}
    if not override.is_sweep_override():
        return None
    ends = sorted(sweep.range()) if override.is_range_sweep() else [sweep.start, sweep.end]
    is_log = "log" in sweep.tags
    if not ends or ends[0] >= ends[-1] or (is_log and ends[0] <= 0):
        raise ValueError(f"{text}: the range needs a lower end below its upper one" + ", above 0 for log" * is_log)
    step = {"step": abs(sweep.step)} if override.is_range_sweep() and not is_log else {}
    kind = "IntDistribution" if isinstance(ends[0], int) else "FloatDistribution"
    return kind, {"low": ends[0], "high": ends[-1], "log": is_log, **step}


class _GroupFiles(ConfigSource):
    """The files in `configs/`, as a source of Hydra's that gives numbers for the values, which index `options`.

    So Hydra composes defaults lists and packages, while the values are converted as those of the command line, and
    mistakes have their place.
    """

    options: ClassVar[list[FileOption]] = []
    files: ClassVar[dict[str, Path]] = {}  # that were read, by their names in defaults lists

    @staticmethod
    def scheme() -> str:
        return "nmt"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return any((folder / config_path).is_dir() for folder in search_path())

    def is_config(self, config_path: str) -> bool:
        group, _, choice = config_path.rpartition("/")
        return find_file(config_path) is not None or choice in group_choices(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return group_choices(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        file, (group, _, choice) = find_file(config_path), config_path.rpartition("/")
        content = registered_choice(group, choice) if file is None else read_file(file, group)
        if file is not None:
            self.files[config_path] = file
        config = OmegaConf.create({"defaults": content.defaults} if content.defaults else {})
        for option in content.options:
            if hint := hydra_hint(setting := f"{option.path}={option.text}") if option.path.startswith("hydra") else "":
                raise ValueError(f"{option.where}: {setting}: unknown option; {hint}")
            OmegaConf.update(config, option.path, len(self.options))
            self.options.append(option)
        return ConfigResult(self.scheme(), str(file), config, {"package": content.package})


class _GroupFilesPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("nmt", f"{_GroupFiles.scheme()}://configs")


Plugins.instance().register(_GroupFiles)
Plugins.instance().register(_GroupFilesPath)


@functools.cache
def log_user_file(file: Path) -> None:
    """Log a file of the user's that is read, once."""
    project_folder, *user_folders = search_path()
    for folder in user_folders:
        if file.is_relative_to(folder):
            is_known = (project_folder / file.relative_to(folder)).is_file()
            log_to_stderr()
            log.info("options of %s%s", file, ", in place of the project's file of this name" if is_known else "")
