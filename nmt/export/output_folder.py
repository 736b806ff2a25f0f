"""The output folder: written atomically, replacing an earlier export only."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nmt.runtime.files import final_name_in_errors, name_in_errors, remove_stale_temp_files, temp_path

MANIFEST = "export.json"


def check(output: Path) -> None:
    """Raise OSError when `output` is neither missing, nor empty, nor an earlier export with nothing added to it."""
    if not output.exists():
        return
    if not output.is_dir():
        raise FileExistsError(f"output={output}: is a file; give a folder that does not exist yet")
    try:
        written = {MANIFEST, *json.loads((output / MANIFEST).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        written = set()
    foreign = sorted({path.name for path in output.iterdir()} - written)
    if foreign:
        raise FileExistsError(
            f"output={output}: the folder holds files that no export wrote ({', '.join(foreign[:3])}"
            f"{', …' if len(foreign) > 3 else ''}); give a folder that does not exist yet"
        )


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the description of an exported folder."""
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@contextmanager
def atomic_directory(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `output`, which is renamed to it at the end and removed on an error."""
    check(output)
    temporary, previous = temp_path(output), temp_path(output)
    remove_stale_temp_files(output.parent)
    temporary.mkdir()
    try:
        with final_name_in_errors(temporary, output), name_in_errors(output):
            yield temporary
        check(output)
        if output.exists():
            output.rename(previous)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)
