"""The examples in the docstrings run and show what they say; public names have one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import twolayer_kernels
from twolayer_kernels import functional
from twolayer_kernels import numpy as front_end

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(twolayer_kernels.__path__, "twolayer_kernels.")
    if not module.name.startswith("twolayer_kernels.backends.triton")
    and module.name.rpartition(".")[2] not in ("_cpu", "__main__")
)

PUBLIC = {
    name: getattr(twolayer_kernels, name)
    for name in twolayer_kernels.__all__
    if not name.startswith("__")
}
PUBLIC |= {f"functional.{name}": getattr(functional, name) for name in ("two_layer", "linear_relu")}
PUBLIC |= {
    f"numpy.{name}": value
    for name, value in vars(front_end).items()
    if callable(value) and name.startswith(("two_layer", "linear_relu"))
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name):
    assert ">>>" in (PUBLIC[name].__doc__ or "")


def test_a_wrong_example_is_found():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda _: None).failed == 1
