"""A folder that appears whole or not at all, and may replace what an earlier export wrote."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nmt.runtime.files import remove_stale_temp_files, temp_path

MANIFEST = "export.json"


def check(output: Path) -> None:
    """Raise OSError when `output` holds something that an export would destroy.

    An empty folder may be there, and an earlier export with nothing added to it: it is replaced.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise FileExistsError(f"output={output}: is a file; give a folder that does not exist yet")
    try:
        manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
        written = {MANIFEST, *manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        written = set()
    foreign = sorted({path.name for path in output.iterdir()} - written)
    if foreign:
        raise FileExistsError(
            f"output={output}: the folder holds what no export wrote ({', '.join(foreign[:3])}"
            f"{', …' if len(foreign) > 3 else ''}); give a folder that does not exist yet"
        )


@contextmanager
def atomic_directory(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `output`, which takes its name at the end and is removed on an error."""
    check(output)
    temporary, former = temp_path(output), temp_path(output)
    remove_stale_temp_files(output.parent)
    temporary.mkdir()
    try:
        yield temporary
        check(output)
        if output.exists():
            output.rename(former)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(former, ignore_errors=True)
