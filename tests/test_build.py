"""What setup.py asks of a compiler, and what it says where something is missing."""

from __future__ import annotations

import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


class CompileError(Exception):
    pass


@pytest.fixture(scope="module")
def setup_script():
    """The names of setup.py, run beside stand-ins for the packages of a build environment."""
    stand_ins = {
        "pybind11": {},
        "pybind11.setup_helpers": {
            "ParallelCompile": lambda name: types.SimpleNamespace(install=lambda: None),
            "Pybind11Extension": lambda *args, **options: None,
            "build_ext": object,
        },
        "setuptools": {"setup": lambda **options: None},
        "setuptools.errors": {"CompileError": CompileError},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, contents in stand_ins.items():
            module = types.ModuleType(name)
            vars(module).update(contents)
            patch.setitem(sys.modules, name, module)
        return runpy.run_path(str(ROOT / "setup.py"))


def compiler(*lacks):
    """One that does not take sources or flags with these words."""

    def compiles(source, flags):
        for word in lacks:
            if word in source or word in flags:
                return f"error: {word}"
        return None

    return compiles


def test_a_whole_compiler_builds_with_openmp(setup_script):
    assert setup_script["openmp_flags"](compiler(), True) == ["-fopenmp"]


def test_openmp_may_be_left_out(setup_script):
    assert setup_script["openmp_flags"](compiler(), False) == []


@pytest.mark.parametrize("missing", ["-fopenmp", "omp.h"])
def test_without_openmp_the_build_goes_on_and_says_so(setup_script, capsys, missing):
    assert setup_script["openmp_flags"](compiler(missing), True) == []
    assert "no OpenMP here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("missing", "named"),
    [("#include <vector>", "apt-get install g++"), ("__builtin_shufflevector", "GCC 12")],
)
def test_what_is_missing_is_named(setup_script, missing, named):
    with pytest.raises(CompileError, match=f"(?s){named.replace('+', '[+]')}.*error: "):
        setup_script["openmp_flags"](compiler(missing), True)


@pytest.mark.parametrize("probe", ["PLAIN_PROBE", "VECTORS_PROBE", "OPENMP_PROBE"])
def test_the_probes_are_right_where_the_kernels_were_built(setup_script, tmp_path, probe):
    source = tmp_path / "probe.cpp"
    source.write_text(setup_script[probe])
    done = subprocess.run(
        ["c++", "-std=c++17", "-fopenmp", "-c", source, "-o", tmp_path / "probe.o"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
