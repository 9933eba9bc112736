"""The examples in the documentation run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WHOLE_PROGRAMS = [
    ROOT / "README.md",
    ROOT / "docs" / "fit.md",
    ROOT / "docs" / "tables.md",
    ROOT / "docs" / "sklearn.md",
    *sorted((ROOT / "docs" / "pytorch").glob("*.md")),
]
EXAMPLES = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in WHOLE_PROGRAMS
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code):
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_every_page_on_pytorch_has_an_example():
    pages = sorted((ROOT / "docs" / "pytorch").glob("*.md"))
    assert len(pages) == 6
    for page in pages:
        assert "```python" in page.read_text(), page


def test_links_to_files_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"`[^`]*`", "", page.read_text())
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
