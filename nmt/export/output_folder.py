"""A folder that is whole or not there, and may replace what an earlier export wrote."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nmt.runtime.files import neighbour, remove_leftovers

MANIFEST = "export.json"


def check(output: Path) -> None:
    """Raises OSError when something stands at `output` that an export would destroy.

    An empty folder may be there, and an earlier export with nothing added to it: it is replaced.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise FileExistsError(f"output={output}: is a file; give a folder that does not exist yet")
    present = {path.name for path in output.iterdir()}
    foreign = sorted(present - _written(output))
    if foreign:
        raise FileExistsError(
            f"output={output}: the folder holds what no export wrote ({', '.join(foreign[:3])}"
            f"{', …' if len(foreign) > 3 else ''}); give a folder that does not exist yet"
        )


def _written(output: Path) -> set[str]:
    """The names in a folder that are an earlier export's."""
    try:
        manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
        return {MANIFEST, *manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextmanager
def whole(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output`, which takes its name when the block ends and is removed when it fails."""
    check(output)
    temporary = neighbour(output)
    remove_leftovers(output.parent)
    temporary.mkdir()
    try:
        yield temporary
        check(output)
        if not output.exists():
            temporary.rename(output)
            return
        former = neighbour(output)
        output.rename(former)
        temporary.rename(output)
        shutil.rmtree(former)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
