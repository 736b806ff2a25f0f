"""Run a script where packages are missing, all but torch, what torch needs itself, numpy, sentencepiece and triton."""

import importlib.abc
import runpy
import sys
from pathlib import Path
from typing import Any

OURS = {path.stem for path in (Path(__file__).parent.parent.parent / "scripts").glob("*.py")} | {"nmt"}
OF_TORCH = {
    "torch", "functorch", "torchgen", "typing_extensions", "filelock", "sympy", "mpmath", "networkx", "jinja2",
    "markupsafe", "fsspec", "setuptools", "_distutils_hack", "pkg_resources", "nvidia",
}  # fmt: skip
ALLOWED = OURS | OF_TORCH | set(sys.stdlib_module_names) | {"numpy", "sentencepiece", "_sentencepiece", "triton"}


class Few(importlib.abc.MetaPathFinder):
    """Finds what another finder finds, if it is allowed."""

    def __init__(self, finder: Any) -> None:
        self.finder = finder

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Return None for every other package, as where it is not installed."""
        is_allowed = name.partition(".")[0] in ALLOWED or name.startswith("_sysconfigdata")
        return self.finder.find_spec(name, path, target) if is_allowed else None


if __name__ == "__main__":
    sys.meta_path[:] = [Few(finder) for finder in sys.meta_path]
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
