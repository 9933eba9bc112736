"""The examples in the documentation run."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WHOLE_PROGRAMS = [
    ROOT / "README.md",
    ROOT / "docs" / "fit.md",
    ROOT / "docs" / "numpy.md",
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


@pytest.mark.parametrize("module", ["", ".numpy", ".sklearn"])
def test_the_reference_names_everything_public(module):
    reference = (ROOT / "docs" / "reference.md").read_text()
    module = importlib.import_module(f"twolayer_kernels{module}")
    public = set(module.__all__) - {"__version__"}
    assert {name for name in public if not re.search(rf"\b{name}\b", reference)} == set()


def test_the_reference_names_all_environment_variables():
    reference = (ROOT / "docs" / "reference.md").read_text()
    sources = [ROOT / "setup.py", *ROOT.glob("csrc/*.cpp"), *ROOT.glob("twolayer_kernels/**/*.py")]
    used = {
        name for path in sources for name in re.findall(r"\bTWOLAYER_[A-Z_]+\b", path.read_text())
    }
    assert used == set(re.findall(r"`(TWOLAYER_[A-Z_]+)`", reference))
