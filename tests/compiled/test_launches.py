"""The launcher: how many launches a call takes, and that the cached path is the same launch."""

from __future__ import annotations

import pytest
import torch
import triton

from tests.shapes import Shape
from twolayer_kernels.backends import triton as backend
from twolayer_kernels.backends.triton import launch, layers, two_layers

from . import configurations, stub

TUTORIAL = Shape(64, 1000, 100, 10)
LARGE = Shape(4096, 4096, 4096, 4096)
# Small enough that the first weight's gradient is cut into parts.
DEEP = Shape(8192, 512, 512, 512)
ALL = (True, True, True, True, True)

starts_directly = pytest.mark.skipif(
    not launch._starts_directly, reason=f"triton {triton.__version__} starts its kernels itself"
)


@pytest.fixture
def driver():
    with stub.device(90) as driver:
        yield driver


def new(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype)


def forward_and_backward(shape, needs=ALL, dtype=torch.bfloat16, keep=True):
    """The launches of one forward and one backward, by name."""
    x = new(shape.batch, shape.in_features, dtype=dtype)
    w1 = new(shape.hidden_features, shape.in_features, dtype=dtype)
    w2 = new(shape.out_features, shape.hidden_features, dtype=dtype)
    b1 = new(shape.hidden_features, dtype=dtype)
    b2 = new(shape.out_features, dtype=dtype)
    y, a = backend.two_layer_forward(x, w1, w2, b1, b2, keep)
    backend.two_layer_backward(torch.empty_like(y), x, w1, w2, b1, a, needs)


def names(driver):
    return [launched.name.removesuffix("_kernel") for launched in driver.launches]


PRODUCT, SUM, COLUMNS = "product", "sum_parts", "column_sums"


@pytest.mark.parametrize("allowed", [False, True], ids=["ieee", "tf32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_tutorials_network_takes_two_launches(driver, dtype, allowed):
    with configurations.tf32(allowed):
        forward_and_backward(TUTORIAL, dtype=dtype)
    assert names(driver) == ["narrow_forward", "narrow_backward"]


@pytest.mark.parametrize(
    ("shape", "needs", "keep", "expected"),
    [
        # Both layers; grad_w2 with grad_b2; dh, and grad_b1 from its sums; grad_x; grad_w1.
        (LARGE, ALL, True, [PRODUCT] * 3 + [COLUMNS] + [PRODUCT, SUM] + [PRODUCT] * 2),
        # The activation was not kept: the first layer again.
        (LARGE, ALL, False, [PRODUCT] * 4 + [COLUMNS] + [PRODUCT, SUM] + [PRODUCT] * 2),
        (
            LARGE,
            (False, True, True, True, True),
            True,
            [PRODUCT] * 3 + [COLUMNS, PRODUCT, SUM, PRODUCT],
        ),
        (LARGE, (True, False, False, False, False), True, [PRODUCT] * 4),
        (LARGE, (False, False, True, False, True), True, [PRODUCT] * 3 + [COLUMNS]),
        (LARGE, (False, False, False, False, True), True, [PRODUCT] * 2 + [COLUMNS]),
        # Each weight's gradient in parts, and their sum.
        (
            DEEP,
            ALL,
            True,
            [PRODUCT] * 3 + [SUM, COLUMNS] + [PRODUCT, SUM] + [PRODUCT] + [PRODUCT, SUM],
        ),
    ],
    ids=["all", "activation again", "no grad_x", "grad_x", "second layer", "grad_b2", "in parts"],
)
def test_launches_of_the_general_path(driver, shape, needs, keep, expected):
    forward_and_backward(shape, needs, keep=keep)
    assert names(driver) == expected


def test_launches_of_one_layer(driver):
    x, w, b, a = new(4096, 4096), new(4096, 4096), new(4096), new(4096, 4096)
    backend.linear_relu_forward(x, w, b)
    assert names(driver) == [PRODUCT]
    driver.launches.clear()
    backend.linear_relu_backward(a, x, w, a, (True, True, True))
    assert names(driver) == ["masked", SUM, PRODUCT, PRODUCT]


def a_product(size, monkeypatch):
    """What is launched for a product with all that an epilogue has."""
    taken = []
    monkeypatch.setattr(layers, "launch", lambda *arguments: taken.append(arguments))
    layers.hidden_gradient(new(size, size), new(size, size), new(size, size), True)
    return taken[0]


def a_narrow_network(monkeypatch):
    taken = []
    with monkeypatch.context() as patch:
        patch.setattr(launch, "launch", lambda *arguments: taken.append(arguments))
        forward_and_backward(TUTORIAL)
    return taken[1]


@pytest.fixture(params=["descriptors", "pointers", "narrow"])
def launchable(request, driver, monkeypatch):
    """The arguments of one call of ``launch``."""
    if request.param == "narrow":
        return a_narrow_network(monkeypatch)
    return a_product({"descriptors": 4096, "pointers": 4100}[request.param], monkeypatch)


@starts_directly
def test_the_second_launch_is_the_first_without_triton_in_between(driver, launchable, monkeypatch):
    kernel = launchable[0]
    launch.launch(*launchable)

    def run(*arguments, **keywords):
        raise AssertionError("looked at every argument again")

    monkeypatch.setattr(kernel, "run", run)
    launch.launch(*launchable)
    first, second = driver.launches
    assert first[:-1] == second[:-1]
    assert len(first.arguments) == len(second.arguments) == len(kernel.arg_names)
    for name, before, now in zip(kernel.arg_names, first.arguments, second.arguments, strict=True):
        assert before is now or before == now, name


@starts_directly
def test_a_prepared_launch_looks_at_nothing_but_alignment(driver, monkeypatch):
    forward_and_backward(TUTORIAL)

    def look(*arguments):
        raise AssertionError("looked at every argument again")

    with monkeypatch.context() as patch:
        patch.setattr(launch, "launch", look)
        forward_and_backward(TUTORIAL)
    once, again = driver.launches[:2], driver.launches[2:]
    for first, second in zip(once, again, strict=True):
        assert first[:-1] == second[:-1]
        assert len(first.arguments) == len(second.arguments)


def test_a_version_that_has_not_been_tried_is_started_by_triton(driver, launchable, monkeypatch):
    monkeypatch.setattr(launch, "_starts_directly", False)
    launch.launch(*launchable)
    assert count_calls(launchable) == 1
    first, second = driver.launches
    assert first[:-1] == second[:-1]


def test_a_row_of_more_columns_than_a_grid_has_programs_in_its_second_dimension(driver):
    grad = torch.empty(1, 1).expand(1, 64 * stub.MOST_PROGRAMS + 1)
    layers.masked(grad, grad, False)
    assert names(driver) == ["masked"]


def test_a_profiler_is_told_of_every_launch(driver, launchable):
    told = []
    hook = triton.knobs.runtime.launch_enter_hook
    launch.launch(*launchable)
    hook.add(told.append)
    try:
        before = len(driver.launches)
        calls = count_calls(launchable)
    finally:
        hook.remove(told.append)
    assert len(driver.launches) == before + 1
    assert calls == 1


def count_calls(launchable):
    """How often Triton's own launch is gone through in one more launch."""
    kernel, calls = launchable[0], []
    run = kernel.run

    def counted(*arguments, **keywords):
        calls.append(arguments)
        return run(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "run", counted)
        launch.launch(*launchable)
    return len(calls)


def shifted(t):
    """The same sizes and strides, one element later in memory."""
    fresh = torch.empty(t.numel() + 1, dtype=t.dtype)
    return fresh[1:].view(t.shape)


def transposed(t):
    return torch.empty(t.shape[::-1], dtype=t.dtype).T


def with_rows_apart(t):
    """Rows one element further from each other."""
    return torch.empty(t.shape[0], t.shape[1] + 1, dtype=t.dtype)[:, :-1]


# (samples, what is done to the samples, whether the compiled kernel serves again)
CALLS = {
    "the same": (64, None, True),
    "another batch of the kind": (48, None, True),
    "a batch of no multiple of 16": (63, None, True),
    "a batch of 1": (1, None, True),
    "alignment": (64, shifted, False),
    "row stride": (64, with_rows_apart, False),
    "column stride": (64, transposed, False),
    "dtype": (64, torch.Tensor.half, False),
}


@starts_directly
@pytest.mark.parametrize(("batch", "changed", "served"), CALLS.values(), ids=CALLS)
def test_another_specialization_is_another_kernel(driver, monkeypatch, batch, changed, served):
    kernel = two_layers.narrow_forward_kernel
    compiled = []
    run = kernel.run
    tile = two_layers.choose_narrow("narrow_forward", "16bit", launch.device_of(new(1)), *TUTORIAL)
    monkeypatch.setattr(two_layers, "choose_narrow", lambda *_: tile)

    def forward(batch, change):
        tensors = [new(batch, 1000), new(100, 1000), new(10, 100)]
        tensors[0] = tensors[0] if change is None else change(tensors[0])
        two_layers.forward(*(t.to(tensors[0].dtype) for t in tensors), None, None, True)

    forward(64, None)
    monkeypatch.setattr(kernel, "run", lambda *a, **k: compiled.append(1) or run(*a, **k))
    forward(batch, changed)
    assert len(compiled) == (0 if served else 1)
    # Triton, which looks at everything, does not tell more of them apart.
    (kernels, *_) = kernel.device_caches[0]
    assert len(kernels) == (1 if served else 2)
    assert len(launch._compiled) == (1 if served else 2)


# Triton makes a constant of an argument that is 1, which the interpreter does not.
SIZES_OF_ONE = (
    Shape(1, 1000, 100, 10),
    Shape(64, 1, 100, 10),
    Shape(64, 1000, 1, 10),
    Shape(64, 1000, 100, 1),
    Shape(1, 1, 1, 1),
    Shape(1, 4096, 4096, 4096),
    Shape(4096, 1, 4096, 4096),
    Shape(4096, 4096, 1, 4096),
    Shape(4096, 4096, 4096, 1),
    Shape(1, 1, 4096, 1),
)


@pytest.mark.parametrize("shape", SIZES_OF_ONE, ids=str)
def test_sizes_of_one_compile(driver, shape):
    forward_and_backward(shape)
    assert driver.launches
