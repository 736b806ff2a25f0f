"""Files and folders of the cache: complete or not there, whoever else may be making them at the same time."""

import shutil
from collections.abc import Callable
from pathlib import Path

from nmt.runtime.files import temp_path


def cached_directory(final: Path, complete: Callable[[Path], bool], build: Callable[[Path], None]) -> Path:
    """`final`, filled by `build` unless it is already `complete`.

    It is built beside its place and moved there in one step. Of several processes that build it at once one wins, and
    the others take what it made. An incomplete folder is replaced.
    """
    if complete(final):
        return final
    temporary = temp_path(final)
    temporary.mkdir()
    try:
        build(temporary)
        if final.exists() and not complete(final):
            damaged = temp_path(final)
            final.rename(damaged)
            shutil.rmtree(damaged)
        try:
            temporary.rename(final)
        except OSError:
            if not complete(final):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final
