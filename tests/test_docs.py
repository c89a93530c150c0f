"""The code in the documents runs, top to bottom, as a reader would run it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"))]


def _blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


WITH_CODE = [page for page in PAGES if _blocks(page)]


def test_there_are_pages_with_code():
    assert {page.name for page in WITH_CODE} >= {"README.md", "CONTRIBUTING.md", "moe.md"}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_in_documents_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": page.stem}
    for block in _blocks(page):
        # From our own pages, nowhere else.
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} -> {target}"
