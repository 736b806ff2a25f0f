"""Directories of the cache: complete or absent, whatever other processes are building at the same time."""

import shutil
from collections.abc import Callable
from pathlib import Path

from nmt.runtime.files import temp_path


def cached_directory(final: Path, is_complete: Callable[[Path], bool], build: Callable[[Path], None]) -> Path:
    """Return `final`, filled by `build` unless `is_complete` holds for it.

    It is built in a temporary directory beside it and moved in one step. Of several processes that build it at once one
    wins, and the others use its result. An incomplete directory is replaced.
    """
    if is_complete(final):
        return final
    temporary = temp_path(final)
    temporary.mkdir()
    try:
        build(temporary)
        if final.exists() and not is_complete(final):
            damaged = temp_path(final)
            final.rename(damaged)
            shutil.rmtree(damaged)
        try:
            temporary.rename(final)
        except OSError:
            if not is_complete(final):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final
