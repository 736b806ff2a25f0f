"""Plugins: Python files and modules of the user's that add entries to the tables of choices.

Only what `plugins=` or the environment variable NMT_PLUGINS names is ever run; a checkpoint stores names and digests.
"""

import contextlib
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from nmt.config import from_environment
from nmt.runtime.logs import warn_once

VARIABLE = "NMT_PLUGINS"
"""Environment variable with further plugins, separated by commas or as in PATH."""
TABLES = (
    *("attention.scores.SCORES", "attention.normalizers.NORMALIZERS", "attention.windows.WINDOWS"),
    *("models.rnn_decoder.DECODERS", "models.layers.NORMS", "models.layers.ACTIVATIONS", "models.MODELS"),
    *("data.sources.SOURCES", "data.tokenizer.TOKENIZERS", "evaluation.metrics.METRICS", "training.optim.SCHEDULES"),
    *("training.config.EARLY_STOPPING_METRICS", "alignment.symmetrization.METHODS", "alignment.writers.FORMATS"),
)
"""The tables of choices, which are imported only when there are plugins."""


class Plugin(NamedTuple):
    """A plugin by the name it was given, and the SHA-256 of its file; of a package that of its `__init__.py`."""

    name: str
    digest: str


LOADED: dict[str, Plugin] = {}
"""The plugins of this process, by the paths of files and the names of modules, with which another one can load them."""
OWNERS: dict[tuple[str, str], Plugin] = {}
"""The plugin that has registered an entry of one of `TABLES`; entries of nmt's own are not here."""


def load_plugins(names: Sequence[str]) -> list[Plugin]:
    """Import plugins, each once in a process, and return them, and those of NMT_PLUGINS after them.

    Args:
        names: a file (the name ends in .py or has a folder), or a module, searched in the working directory too.

    Raises:
        ValueError: one cannot be imported, has changed since it was, replaces an entry of a table, or is named twice.
        FileNotFoundError: it is no file.
    """
    names = [names] if isinstance(names, str) else list(names)
    further = [name for name in re.split(rf"[,{os.pathsep}]", os.environ.get(VARIABLE, "")) if name]
    if len({_key(name) for name in names}) < len(names):
        raise ValueError(f"plugins=[{','.join(names)}]: one of them is named more than once")
    unique: dict[str, str] = {}
    for name in [*names, *further]:
        unique.setdefault(_key(name), getattr(name, "written", name))
    return [_load(name, key) for key, name in unique.items()]


def loaded(names: Sequence[str]) -> list[Plugin]:
    """Return plugins that this process has imported, without importing any: these names may come from a stored file.

    Raises:
        ValueError: one has not been imported.
    """
    if missing := [name for name in names if _key(name) not in LOADED]:
        given = f"[{','.join(missing)}]" if len(missing) > 1 else missing[0]
        raise ValueError(
            f"plugins: {' and '.join(missing)}: named in a stored configuration, which runs no code by itself; if you "
            f"trust it, give plugins={given} or set {VARIABLE}={','.join(missing)}"
        )
    return [Plugin(name, LOADED[_key(name)].digest) for name in names]


def files_of_functions(names: Sequence[str]) -> list[str]:
    """Return the plugins in names FILE.py:FUNCTION and MODULE:FUNCTION, each once."""
    return list(dict.fromkeys(file for name in names if (file := name.strip(" '\"").rpartition(":")[0])))


def named_function(option: str, name: str) -> tuple[Callable[..., Any], str]:
    """Return the function FILE.py:FUNCTION or MODULE:FUNCTION and the digest of its file; raise ValueError where there
    is none, or this process has not imported the plugin: the name may come from a stored file."""
    file, _, function = name.rpartition(":")
    if (key := _key(file)) not in LOADED:
        hint = f"if you trust it, give {option}=[{name}], else {option}=[] to do without"
        raise ValueError(f"{option}={name}: named in a stored configuration, which runs no code by itself; {hint}")
    if not callable(found := getattr(sys.modules[_module_name(key)], function, None)):
        raise ValueError(f"{option}={name}: {file} has no function {function}")
    return found, LOADED[key].digest


def unowned() -> list[str]:
    """Return the entries that neither nmt nor a plugin has put into a table, as "mine in SCORES"."""
    return [
        f"{entry} in {table.rpartition('.')[2]}"
        for table in TABLES
        for entry, value in _table(table).items()
        if (table, entry) not in OWNERS and not getattr(value, "__module__", "nmt.").startswith(("nmt.", "torch."))
    ]


@contextlib.contextmanager
def naming_faults() -> Iterator[None]:
    """Where there are plugins, turn an exception that is a defect into a ValueError that says which may have it."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        files = {str(sys.modules[_module_name(key)].__file__): plugin.name for key, plugin in LOADED.items()}
        if not files:
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
        where = f"{files[frames[-1].filename]}: line {frames[-1].lineno}" if frames else ", ".join(files.values())
        reason = str(error).strip().split("\n")[0]
        doubt = "" if frames else " (perhaps not its fault)"
        raise ValueError(
            f"plugins: {where}: {type(error).__name__}: {reason}{doubt}; NMT_TRACEBACK=1 shows the traceback"
        ) from error


def check_loaded(stored: Sequence[Sequence[str]]) -> None:
    """Raise ValueError unless the plugins of a checkpoint, [name, digest] each, are loaded; warn of other content."""
    digests = {plugin.digest for plugin in LOADED.values()}
    by_name = {Path(plugin.name).name: plugin for plugin in LOADED.values()}
    unmatched = [Plugin(*entry) for entry in stored if entry[1] not in digests]
    if missing := [plugin for plugin in unmatched if Path(plugin.name).name not in by_name]:
        which = " and ".join(f"{name} (sha256 {digest[:12]}…)" for name, digest in missing)
        names = ",".join(plugin.name for plugin in missing)
        raise ValueError(
            f"was trained with the plugin{'s' * (len(missing) > 1)} {which}: give "
            f"plugins={f'[{names}]' if len(missing) > 1 else names} (nmt.compare: --plugins {names}) or set "
            f"{VARIABLE}={names}; a checkpoint runs no code by itself"
        )
    for name, digest in unmatched:
        warn_once(
            f"plugin {name}: now sha256 {by_name[Path(name).name].digest[:12]}…, when it was trained {digest[:12]}…"
        )


def check_unchanged(stored: Sequence[Sequence[str]], now: Sequence[Sequence[str]]) -> None:
    """Raise ValueError unless a run that is continued has its plugins, [name, digest] each, as they were."""
    for name, digest in stored:
        if digest not in [other for _, other in now]:
            raise ValueError(
                f"plugins: the run was started with {name} (sha256 {digest[:12]}…), which is not given or has changed: "
                "give it as it was, or give this run another name (name=…); nothing was changed"
            )


def _key(name: str) -> str:
    """Return the absolute path of a file, or the name of a module."""
    path = Path(from_environment(name)).expanduser()
    return str(path.resolve()) if path.suffix == ".py" or {"/", os.sep} & set(name) else name


def _module_name(key: str) -> str:
    """Return the name in sys.modules, by which classes are pickled; that of a file is no other module's."""
    is_file = Path(key).is_absolute()
    return f"nmt_plugin_{Path(key).stem}_{hashlib.sha256(key.encode()).hexdigest()[:12]}" if is_file else key


def _load(name: str, key: str) -> Plugin:
    path = Path(key)
    if path.is_absolute() and not path.is_file():
        reason = "is a folder; name a file in it" if path.is_dir() else f"no such file (relative to {Path.cwd()})"
        raise FileNotFoundError(f"plugins: {name}: {reason}")
    if key in LOADED:
        file = Path(str(sys.modules[_module_name(key)].__file__))
        if hashlib.sha256(file.read_bytes()).hexdigest() != LOADED[key].digest:
            raise ValueError(f"plugins: {name}: has changed since this process imported it; start the process again")
        return Plugin(name, LOADED[key].digest)
    before = {table: dict(_table(table)) for table in TABLES}
    try:
        content = _import(name, key)
        for table in TABLES:
            for entry, value in before[table].items():
                if _table(table).get(entry) is not value:
                    owner = OWNERS.get((table, entry), Plugin("nmt", "")).name
                    where = f"{entry} in {table.rpartition('.')[2]}"
                    raise ValueError(f"plugins: {name}: {where} is taken, by {owner}; choose another name")
    except BaseException:
        for table in TABLES:  # as if it had not been tried
            _table(table).clear()
            _table(table).update(before[table])
        sys.modules.pop(_module_name(key), None)
        raise
    plugin = LOADED[key] = Plugin(name, hashlib.sha256(content).hexdigest())
    new = [(table, entry) for table in TABLES for entry in _table(table) if entry not in before[table]]
    OWNERS.update(dict.fromkeys(new, plugin))
    return plugin


def _table(path: str) -> dict[str, Any]:
    module, _, name = path.rpartition(".")
    table: dict[str, Any] = getattr(importlib.import_module(f"nmt.{module}"), name)
    return table


def _import(name: str, key: str) -> bytes:
    """Import a plugin and return the content of its file."""
    path = Path(key)
    try:
        if path.is_absolute():
            content, module = path.read_bytes(), ModuleType(_module_name(key))
            module.__file__, sys.modules[module.__name__] = key, module
            exec(compile(content, key, "exec"), module.__dict__)  # so the digest is of what is run
            return content
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        importlib.invalidate_caches()
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in f.filename]
        if isinstance(error, SyntaxError):
            where, reason = f"{error.filename or key}: line {error.lineno or 1}", error.msg
        elif frames:
            line = [frame.lineno for frame in frames if frame.filename == frames[0].filename][-1]
            where, reason = f"{frames[0].filename}: line {line}", str(error).strip().split("\n")[0]
        else:
            where, reason = name, f"{error}, in {Path.cwd()} or installed; a file is named FILE.py"
        raise ValueError(f"plugins: {where}: {type(error).__name__}: {reason}") from error
    if module.__file__ is None:
        raise ValueError(f"plugins: {name}: is a folder without __init__.py; name a module in it")
    return Path(module.__file__).read_bytes()
