"""The modules: parameters, initialisation, checkpoints and copies."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, TwoLayerNet

from .comparing import assert_equal, assert_same_bits
from .problems import BACKENDS, DTYPES, dtype_id

pytestmark = pytest.mark.usefixtures("poisoned_memory")

SIZES = (40, 33, 10)
KEYS = ["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]
each_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
each_backend = pytest.mark.parametrize("backend", [None, *BACKENDS], ids=str)


def pair(bias=True, dtype=torch.float32, seed=0, **options):
    """The fused and the plain network from one seed."""
    torch.manual_seed(seed)
    fused = FusedTwoLayer(*SIZES, bias, dtype=dtype, **options)
    torch.manual_seed(seed)
    return fused, TwoLayerNet(*SIZES, bias, dtype=dtype)


def assert_same_parameters(module, other):
    states = module.state_dict(), other.state_dict()
    assert list(states[0]) == list(states[1])
    for name in states[0]:
        assert_same_bits(name, states[0][name], states[1][name])


# Parameters and initialisation.


@each_bias
@pytest.mark.parametrize("module", [FusedTwoLayer, TwoLayerNet])
def test_state_dict_keys(module, bias):
    keys = KEYS if bias else [key for key in KEYS if key.endswith("weight")]
    assert list(module(*SIZES, bias).state_dict()) == keys


@each_bias
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_initialisation_is_that_of_linear(bias, dtype):
    fused, plain = pair(bias, dtype, seed=3)
    torch.manual_seed(3)
    linears = nn.Sequential(
        nn.Linear(40, 33, bias, dtype=dtype), nn.ReLU(), nn.Linear(33, 10, bias, dtype=dtype)
    )
    after = torch.rand(1)
    assert_same_parameters(fused, plain)
    for ours, theirs in zip(fused.parameters(), linears.parameters(), strict=True):
        assert_same_bits("parameter", ours.detach(), theirs.detach())
    torch.manual_seed(3)
    FusedTwoLayer(*SIZES, bias, dtype=dtype)
    assert_same_bits("the next random number", torch.rand(1), after)


@each_bias
def test_fused_linear_relu_is_a_linear_in_its_parameters(bias):
    torch.manual_seed(4)
    fused = FusedLinearReLU(40, 33, bias)
    torch.manual_seed(4)
    linear = nn.Linear(40, 33, bias)
    assert isinstance(fused, nn.Linear)
    assert_same_parameters(fused, linear)


@each_bias
def test_checkpoints_load_both_ways(bias):
    fused, plain = pair(bias, seed=5)
    other_fused, other_plain = pair(bias, seed=6)
    other_fused.load_state_dict(plain.state_dict())
    other_plain.load_state_dict(fused.state_dict())
    assert_same_parameters(other_fused, plain)
    assert_same_parameters(other_plain, fused)


def test_a_checkpoint_in_a_file_loads_both_ways(tmp_path):
    fused, plain = pair(seed=7)
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    torch.save(fused.state_dict(), tmp_path / "fused.pt")
    other_fused, other_plain = pair(seed=8)
    other_fused.load_state_dict(torch.load(tmp_path / "plain.pt", weights_only=True))
    other_plain.load_state_dict(torch.load(tmp_path / "fused.pt", weights_only=True))
    assert_same_parameters(other_fused, other_plain)
    assert_same_parameters(fused, other_plain)


def test_sizes_are_readable_and_options_are_kept():
    module = FusedTwoLayer(*SIZES, recompute=True, backend="torch")
    assert (module.in_features, module.hidden_features, module.out_features) == SIZES
    assert module.recompute is True
    assert module.backend == "torch"


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        (
            lambda: FusedTwoLayer(*SIZES, bias=False, recompute=True, backend="torch"),
            [
                "FusedTwoLayer(",
                "recompute=True",
                "backend='torch'",
                "in_features=40",
                "out_features=33",
                "in_features=33",
                "out_features=10",
                "bias=False",
            ],
        ),
        (lambda: FusedTwoLayer(*SIZES), ["FusedTwoLayer(", "backend=None", "bias=True"]),
        (
            lambda: FusedLinearReLU(40, 33, backend="cpu"),
            ["FusedLinearReLU(", "in_features=40", "out_features=33", "backend='cpu'"],
        ),
    ],
    ids=["options", "defaults", "linear_relu"],
)
def test_repr_tells_sizes_and_options(module, parts):
    text = repr(module())
    assert [part for part in parts if part not in text] == []


# from_linears.


def test_from_linears_shares_the_parameters():
    linear1, linear2 = nn.Linear(40, 33), nn.Linear(33, 10)
    fused = FusedTwoLayer.from_linears(linear1, linear2)
    for ours, theirs in zip(
        fused.parameters(), (*linear1.parameters(), *linear2.parameters()), strict=True
    ):
        assert ours is theirs
    assert list(fused.state_dict()) == KEYS
    x = torch.randn(5, 40)
    torch.optim.SGD(fused.parameters(), lr=0.1).zero_grad()
    fused(x).sum().backward()
    assert linear1.weight.grad is fused.linear1.weight.grad
    wanted = linear2(torch.relu(linear1(x)))
    torch.testing.assert_close(fused(x), wanted)


def test_from_linears_with_one_bias():
    fused = FusedTwoLayer.from_linears(nn.Linear(4, 3, bias=False), nn.Linear(3, 2))
    assert list(fused.state_dict()) == ["linear1.weight", "linear2.weight", "linear2.bias"]
    assert fused(torch.randn(5, 4)).shape == (5, 2)


# Copies.

COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
}


def _through_a_file(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES["torch.save"] = _through_a_file


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: FusedTwoLayer(*SIZES, recompute=True, backend="torch"),
        lambda: FusedTwoLayer.from_linears(nn.Linear(40, 33), nn.Linear(33, 10)),
        lambda: FusedLinearReLU(40, 33, backend="reference"),
    ],
    ids=["two_layer", "from_linears", "linear_relu"],
)
def test_copies_are_equal_and_apart(make, way):
    module = make()
    module(torch.randn(5, 40)).sum().backward()
    twin = COPIES[way](module)
    assert_same_parameters(twin, module)
    assert repr(twin) == repr(module)
    x = torch.randn(5, 40)
    assert_same_bits("y", twin(x).detach(), module(x).detach())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert any(parameter.any() for parameter in module.parameters())


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@each_backend
def test_to_a_dtype(backend, dtype):
    fused, plain = pair(seed=9, backend=backend)
    fused, plain = fused.to(dtype), plain.to(dtype)
    assert_same_parameters(fused, plain)
    x = torch.randn(5, 40).to(dtype)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(fused(x), plain(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("half", torch.float16), ("bfloat16", torch.bfloat16), ("double", torch.float64)],
)
def test_half_and_its_kin(name, dtype):
    for module in (FusedTwoLayer(*SIZES), FusedLinearReLU(40, 33)):
        y = getattr(module, name)()(torch.ones(5, 40, dtype=dtype))
        assert y.dtype == dtype


def test_to_empty_and_the_meta_device():
    module = FusedTwoLayer(*SIZES, device="meta")
    assert all(parameter.is_meta for parameter in module.parameters())
    module = module.to_empty(device="cpu")
    module.load_state_dict(pair(seed=10)[1].state_dict())
    assert module(torch.ones(2, 40)).isfinite().all()


@each_backend
def test_in_a_sequential_with_leading_dimensions(backend):
    model = nn.Sequential(
        FusedLinearReLU(40, 40, backend=backend), FusedTwoLayer(*SIZES, backend=backend)
    )
    assert model(torch.randn(2, 3, 40)).shape == (2, 3, 10)
    assert [name for name, _ in model.named_parameters()][:3] == [
        "0.weight",
        "0.bias",
        "1.linear1.weight",
    ]


# In use.


@pytest.mark.parametrize("frozen", KEYS)
def test_a_frozen_parameter_has_no_gradient(frozen):
    module = FusedTwoLayer(*SIZES)
    module.get_parameter(frozen).requires_grad_(False)
    module(torch.randn(5, 40)).sum().backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is None) == (name == frozen)


def test_hooks_of_the_module_run():
    module, seen = FusedTwoLayer(*SIZES), []
    module.register_forward_hook(lambda _module, _args, y: seen.append(y.shape))
    module(torch.randn(5, 40))
    assert seen == [(5, 10)]


def test_the_plain_network_is_relu_between_linears():
    _, plain = pair(seed=12)
    x = torch.randn(5, 40)
    h = x @ plain.linear1.weight.T + plain.linear1.bias
    y = h.clamp(min=0) @ plain.linear2.weight.T + plain.linear2.bias
    torch.testing.assert_close(plain(x), y)
    assert_equal("y", plain(x), nn.Sequential(plain.linear1, nn.ReLU(), plain.linear2)(x))
