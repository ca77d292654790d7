"""P24: `import obverse` and `--help` stay light.

Times are measured by benchmarks/import_is_light.py; here, what makes them: nothing heavy is imported.
"""

import subprocess
import sys

HEAVY = {"torch", "numpy", "scipy", "numba", "torchvision", "pydantic", "rich.progress", "tifffile", "linear_operator"}


def imported(code: str) -> set[str]:
    probe = f"{code}\nimport sys\nsys.stderr.write(' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split()) & HEAVY


def test_import_obverse_imports_nothing_heavy():
    assert imported("import obverse") == set()


def test_help_imports_nothing_heavy():
    assert imported("from obverse.cli import run\nrun(['--help'])") == set()


def test_the_probe_sees_a_heavy_import():
    assert imported("import obverse; obverse.operators.Identity") >= {"torch"}


def test_no_torchvision_anywhere():
    import re
    from pathlib import Path

    package = Path(__file__).parents[2] / "obverse"
    sources = [path.read_text() for path in package.rglob("*.py")]
    pattern = re.compile(r"^\s*(import|from) torchvision", re.MULTILINE)
    assert not any(pattern.search(source) for source in sources)
    assert pattern.search("    import torchvision")
