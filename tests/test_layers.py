"""Each layer may import only the layers above it; and no file grows past its duty."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "obverse"
LAYERS = [
    {"errors"},
    {"volume", "compiled", "pages"},
    {"io"},
    {"solvers"},
    {"operators"},
    {"transforms"},
    {"noise"},
    {"problem"},
    {"networks"},
    {"priors"},
    {"posterior"},
    {"methods"},
    {"learning", "trust"},
    {"instruments"},
    {"report"},
    {"run"},
    {"cli"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def imports(source: str, parts: tuple[str, ...]) -> set[str]:
    """Obverse's own top-level packages that a module at `parts` (below obverse/) imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["obverse", *parts[: len(parts) - node.level]] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("obverse.")}
    return found


def violations(source: str, parts: tuple[str, ...]) -> list[str]:
    own = parts[0]
    return [
        f"{'/'.join(parts)} imports {name}"
        for name in sorted(imports(source, parts))
        if name in RANK and name != own and RANK[name] >= RANK[own]
    ]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_runs_back_up(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[-1] != "__main__":
        assert parts[0] in RANK, f"{parts[0]} has no layer: add it to DESIGN's list and to this test"
        assert violations(path.read_text(), parts) == []


def test_an_arrow_back_up_is_caught():
    assert violations("from ..methods import MAP", ("operators", "base")) == ["operators/base imports methods"]
    assert violations("def f():\n    import obverse.cli", ("io", "tiff")) == ["io/tiff imports cli"]
    assert violations("from ...posterior.low_rank import X", ("solvers", "a", "b")) == ["solvers/a/b imports posterior"]
    assert violations("from ..errors import InputError", ("operators", "base")) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_passes_four_hundred_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_no_module_is_called_utils_or_manager():
    assert [path for path in PACKAGE.rglob("*.py") if path.stem in {"utils", "helpers", "common", "manager"}] == []
