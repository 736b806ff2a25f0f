"""Imports go one way: from the commands down to attention."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "nmt"
LAYERS = [
    {"runtime", "renames", "__init__"},
    {"config"},
    {"plugins"},
    {"attention", "alignment", "checkpoint"},
    {"models", "data"},
    {"search"},
    {"inference"},
    {"evaluation"},
    {"training"},
    {"cli"},
    {"export"},
    {"train", "evaluate", "translate", "align", "score", "compare", "serve", "trim", "tune", "clean"},
    {"api"},
    {"__main__"},
]
"""A module imports only from layers listed before its own, or from its own package."""


def modules() -> dict[str, list[Path]]:
    paths: dict[str, list[Path]] = {}
    for path in ROOT.rglob("*.py"):
        paths.setdefault(path.relative_to(ROOT).parts[0].removesuffix(".py"), []).append(path)
    return paths


def imported(path: Path) -> set[str]:
    """Return the nmt modules that a file imports, by their first component."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "nmt":
            names |= {f"nmt.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("nmt.")} - {"__version__"}


def test_every_module_has_a_layer() -> None:
    assert sorted(modules()) == sorted(name for layer in LAYERS for name in layer)


def test_imports_point_down() -> None:
    depth = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = [
        f"{path.relative_to(ROOT)} imports nmt.{target}"
        for name, paths in modules().items()
        if name != "__init__"  # public names, imported when they are first used
        for path in paths
        for target in imported(path)
        if target != name and depth[target] >= depth[name]
    ]
    assert wrong == []


def test_models_and_data_are_independent() -> None:
    for name, other in (("models", "data"), ("data", "models")):
        for path in modules()[name]:
            assert other not in imported(path), path


def test_only_compose_imports_hydra() -> None:
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        roots = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        roots |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        if roots & {"hydra", "omegaconf"}:
            assert path.relative_to(ROOT) in (Path("cli/compose.py"), Path("cli/hydra_groups.py"))
