"""Import hygiene: what importing loads, and that imports between the rooms run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import twolayer_kernels
import twolayer_kernels.numpy

PACKAGE = Path(twolayer_kernels.__file__).parent

# Each room may import those after it.
ORDER = [
    "__main__",
    "cli",
    "app",
    "explaining",
    "sklearn",
    "training",
    "fusing",
    "chains",
    "uses",
    "reading",
    "layers",
    "modules",
    "sharding",
    "functional",
    "flops",
    "autograd",
    "ops",
    "operations",
    "transparency",
    "dispatch",
    "backends",
    "checks",
    "engine",
]
# These stand on the kernels themselves. numpy and sklearn must not reach torch.
STANDS_ON = {
    "numpy": {"_cpu", "checks", "engine"},
    "sklearn": {"_cpu", "engine", "sklearn"},
    "transparency": {"_cpu"},
    "engine": {"_cpu"},
    "backends": {"_cpu"},
}
MAY_USE_NUMPY = {"__main__", "cli", "app"}


def in_a_fresh_process(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_by(statement: str, *names: str) -> list[str]:
    code = f"import sys; {statement}; print(*[n for n in {names!r} if n in sys.modules])"
    return in_a_fresh_process(code).split()


HEAVY = ("torch", "triton", "numpy", "twolayer_kernels._cpu", "rich", "typer", "matplotlib")


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import twolayer_kernels", *HEAVY) == []


def test_the_names_of_the_package_are_listed_without_loading():
    statement = "import twolayer_kernels; assert 'FusedTwoLayer' in dir(twolayer_kernels)"
    assert loaded_by(statement, *HEAVY) == []


WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Blocked())
try:
    {statement}
except (ImportError, NotImplementedError) as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("missing", "statement", "words"),
    [
        ("torch", "from twolayer_kernels import FusedTwoLayer", "pip install torch"),
        ("sklearn", "import twolayer_kernels.sklearn", "'twolayer_kernels[sklearn]'"),
        ("scipy", "import twolayer_kernels.sklearn", "No module named 'scipy"),
        (
            "triton",
            "from twolayer_kernels import explain, FusedTwoLayer;"
            " import torch; FusedTwoLayer(2, 3, 1, backend='triton')(torch.ones(4, 2))",
            "'twolayer_kernels[triton]'",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(missing, statement, words):
    said = in_a_fresh_process(WITHOUT.format(missing=missing, statement=statement))
    assert words in said
    assert missing == "scipy" or "pip install" in said


def test_a_star_brings_the_functions_on_arrays_alone():
    names = in_a_fresh_process(
        "from twolayer_kernels.numpy import *; print(*[n for n in dir() if n[0] != '_'])"
    )
    assert names.split() == sorted(twolayer_kernels.numpy.__all__)


def test_public_names_load_on_first_use():
    for name in twolayer_kernels.__all__:
        assert getattr(twolayer_kernels, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = twolayer_kernels.no_such_name


def test_numpy_loads_no_torch():
    assert loaded_by("import twolayer_kernels.numpy", "torch", "triton") == []


def test_numpy_works_where_torch_is_missing():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, twolayer_kernels.numpy as tk\n"
        "print(tk.two_layer(np.ones((2, 3)), np.ones((4, 3)), np.ones((1, 4))).tolist())"
    )
    assert in_a_fresh_process(code) == "[[12.0], [12.0]]"


def test_sklearn_loads_no_torch():
    statement = "from twolayer_kernels.sklearn import MLPClassifier; MLPClassifier(max_iter=1)"
    assert loaded_by(statement, "torch", "triton") == []


def test_a_missing_scikit_learn_is_named():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "try: import twolayer_kernels.sklearn\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    assert "needs scikit-learn: pip install" in in_a_fresh_process(code)


def test_the_functions_load_no_triton():
    assert loaded_by("from twolayer_kernels.functional import two_layer", "triton") == []


def test_formulas_reach_a_counter_that_is_loaded_later():
    code = """
import sys, torch
from twolayer_kernels.functional import two_layer
assert "torch.utils.flop_counter" not in sys.modules
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    two_layer(torch.ones(2, 3), torch.ones(4, 3), torch.ones(1, 4))
print(counter.get_total_flops())
"""
    expected = str(2 * 2 * (3 * 4 + 4 * 1))
    assert in_a_fresh_process(code) == expected
    assert in_a_fresh_process("import torch.utils.flop_counter\n" + code.replace("not in", "in"))


def test_a_missing_extension_is_named_and_not_replaced():
    code = """
import sys; sys.modules["twolayer_kernels._cpu"] = None
import torch
from twolayer_kernels.functional import two_layer
for backend in ("cpu", None):
    try:
        two_layer(torch.ones(2, 3), torch.ones(4, 3), torch.ones(1, 4), backend=backend)
    except NotImplementedError as error:
        assert "_cpu" in str(error) and "cpu" in str(error), error
        print("refused")
"""
    assert in_a_fresh_process(code).split() == ["refused", "refused"]


def imports_of(source: str, package: tuple[str, ...]) -> set[str]:
    """What a file in ``package`` imports of this library, as dotted names below it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join(filter(None, [*above, node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        start = "twolayer_kernels."
        found.update(name.removeprefix(start) for name in names if name.startswith(start))
    return found


def fault_in(imported: str, room: str, own: str) -> str | None:
    """Why a file of ``room`` may not import this name; ``own`` is its backend, where it is one."""
    target, _, below = imported.partition(".")
    if room == "backends":
        fine = target == "_cpu" or (target == room and below.partition(".")[0] == own)
        return None if fine else "a backend imports the extension and itself, nothing else"
    if target == "__version__":
        return None
    if target in twolayer_kernels.__all__:  # a public name stands where it is made
        target = getattr(twolayer_kernels, target).__module__.split(".")[1]
    if target == room:
        return None
    if target == "numpy":
        return None if room in MAY_USE_NUMPY else "the NumPy front end is for the command line"
    if room in STANDS_ON or target == "_cpu":
        fine = target in STANDS_ON.get(room, ())
        return None if fine else f"{room} stands on {STANDS_ON.get(room, 'other rooms')}"
    if target not in ORDER or room not in ORDER:
        return "it has no place in the order of rooms"
    return None if ORDER.index(room) < ORDER.index(target) else "it stands above"


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    room, own = parts[1], parts[2] if len(parts) > 2 else ""
    for imported in imports_of(path.read_text(), parts[:-1]):
        fault = fault_in(imported, room, own)
        assert fault is None, f"{path.name} imports {imported}: {fault}"


@pytest.mark.parametrize(
    ("source", "imported", "room"),
    [
        ("from ..modules import FusedTwoLayer", "modules.FusedTwoLayer", "backends"),
        ("from . import reference", "backends.reference", "backends"),
        ("from .reference import unsupported", "backends.reference.unsupported", "backends"),
        ("def f():\n    import twolayer_kernels.cli", "cli", "modules"),
        ("from .functional import two_layer", "functional.two_layer", "autograd"),
        ("from . import functional", "functional", "numpy"),
        ("from . import numpy", "numpy", "functional"),
        ("from . import _cpu", "_cpu", "functional"),
        ("from . import FusedTwoLayer", "FusedTwoLayer", "functional"),
        ("from . import elsewhere", "elsewhere", "modules"),
    ],
)
def test_an_import_against_the_order_is_found(source, imported, room):
    package = ("twolayer_kernels", "backends") if room == "backends" else ("twolayer_kernels",)
    assert imports_of(source, package) == {imported}
    assert fault_in(imported, room, "torch") is not None
