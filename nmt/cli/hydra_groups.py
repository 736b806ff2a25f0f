"""Hydra's composition of config groups, from a source that keeps the text and the place of every value."""

import functools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose, initialize
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nmt.cli.config_groups import FileOption, find_file, group_choices, read_file, registered_choice, search_path
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
    except (HydraException, OmegaConfBaseException) as error:
        message = str(error).replace(":\n", ": ").partition("\n")[0]
        match = re.match(r"In '(.+?)': (.*)", message)
        where = _GroupFiles.files.get(match[1]) if match else None
        raise ValueError(f"{where}: {match[2]}" if match and where else f"configs: {message}") from error
    options = {path: _GroupFiles.options[number] for path, number in flatten(tree).items()}
    return options, list(_GroupFiles.files.values())


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
    project_folder, *user_folder = search_path()
    if user_folder and file.is_relative_to(user_folder[0]):
        is_known = (project_folder / file.relative_to(user_folder[0])).is_file()
        log_to_stderr()
        log.info("options of %s%s", file, ", in place of the project's file of this name" if is_known else "")
