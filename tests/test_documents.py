"""What the examples and the documents say runs: every example script, and every Python block of the README and docs."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> str:
    """The Python blocks of a page, as one script."""
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_to_its_assertion(script, capsys, monkeypatch):
    assert re.search(r"^assert ", script.read_text(), flags=re.MULTILINE)
    monkeypatch.setattr(sys, "argv", [str(script)])  # not the options of pytest, which it would take for its folder
    runpy.run_path(str(script))
    assert capsys.readouterr().out


def run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The blocks of a page as a reader would run them: a script of their own."""
    script = folder / f"{page.stem}.py"
    script.write_text(blocks(page))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda path: path.stem)
def test_the_python_blocks_of_a_page_run(page, tmp_path):
    done = run(page, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_a_false_block_would_be_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nassert 1 == 2\n```\n")
    assert run(page, tmp_path).returncode != 0
