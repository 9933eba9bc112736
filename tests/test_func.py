"""torch.func's transforms and forward-mode differentiation give what they give for plain torch."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from torch.utils._pytree import tree_leaves

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, TwoLayerNet
from twolayer_kernels.functional import linear_relu, two_layer

# torch's own: its forward-mode decompositions are TorchScript, which it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture
def pair():
    torch.manual_seed(0)
    plain, fused = TwoLayerNet(6, 5, 3), FusedTwoLayer(6, 5, 3)
    fused.load_state_dict(plain.state_dict())
    return fused, plain, torch.randn(7, 6)


def parameters(model):
    return {name: p.detach() for name, p in model.named_parameters()}


def loss(model):
    return lambda p, x: functional_call(model, p, (x,)).square().sum()


TRANSFORMS = {
    "grad": lambda m, x: grad(loss(m))(parameters(m), x),
    "per_sample_gradients": lambda m, x: vmap(grad(loss(m)), (None, 0))(parameters(m), x),
    "vmap": lambda m, x: vmap(m)(x),
    "vmap_over_batches": lambda m, x: vmap(m)(x.expand(2, 7, 6)),
    "vjp": lambda m, x: vjp(m, x)[1](torch.ones(7, 3)),
    "jvp": lambda m, x: jvp(m, (x,), (x.cos(),)),
    "jacrev": lambda m, x: jacrev(m)(x),
    "jacfwd": lambda m, x: jacfwd(m)(x),
    "hessian": lambda m, x: hessian(lambda x: m(x).square().sum())(x),
    "hessian_of_parameters": lambda m, x: hessian(loss(m))(parameters(m), x),
    "functional_call": lambda m, x: functional_call(
        m, {name: p + 1 for name, p in parameters(m).items()}, (x,)
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_as_plain_torch(pair, transform):
    fused, plain, x = pair
    actual, expected = tree_leaves(transform(fused, x)), tree_leaves(transform(plain, x))
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


def test_an_ensemble_of_models():
    models = [FusedTwoLayer(6, 5, 3) for _ in range(4)]
    stacked, buffers = stack_module_state(models)
    x = torch.randn(7, 6)

    def call(p, b, x):
        return functional_call(models[0], (p, b), (x,))

    outputs = vmap(call, (0, 0, None))(stacked, buffers, x)
    for output, model in zip(outputs, models, strict=True):
        torch.testing.assert_close(output, model(x))


def test_linear_relu(pair):
    layer, x = FusedLinearReLU(6, 5), pair[2]
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias).relu()
    torch.testing.assert_close(vmap(layer)(x), expected)


def test_forward_mode_carries_the_tangent(pair):
    fused, plain, x = pair
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x.cos())
        tangents = [forward_ad.unpack_dual(model(dual)).tangent for model in (fused, plain)]
    assert tangents[0] is not None
    torch.testing.assert_close(*tangents)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_named_backend_is_not_replaced(pair, backend):
    x = pair[2]
    with pytest.raises(NotImplementedError, match=rf"backend='{backend}'.*torch.func"):
        vmap(lambda x: two_layer(x, torch.ones(5, 6), torch.ones(3, 5), backend=backend))(x)


def test_a_wrong_shape_is_named_inside_a_transform(pair):
    x = pair[2]
    with pytest.raises(ValueError, match="w1"):
        vmap(lambda x: two_layer(x, torch.ones(5, 7), torch.ones(3, 5)))(x)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("backend", [None, "cpu", "reference", "torch"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_tensor_that_outlived_its_transform_is_an_input_as_others(which, backend, recompute):
    inputs = [torch.randn(size, requires_grad=True) for size in ((6, 3), (4, 3), (2, 4))]
    kept = []

    def keep(t):
        kept.append(t)
        return t.square().sum()

    torch.func.grad(keep)(inputs[which])
    given = [*inputs[:which], kept[0], *inputs[which + 1 :]]
    y = two_layer(*given, backend=backend, recompute=recompute)
    wanted = torch.relu(inputs[0] @ inputs[1].T) @ inputs[2].T
    torch.testing.assert_close(y, wanted)
    found = torch.autograd.grad(y.sum(), inputs)
    for ours, plain in zip(found, torch.autograd.grad(wanted.sum(), inputs), strict=True):
        torch.testing.assert_close(ours, plain)
    if which < 2:
        a = linear_relu(*given[:2], backend=backend)
        grad = torch.autograd.grad(a.sum(), inputs[which])[0]
        plain = torch.relu(inputs[0] @ inputs[1].T).sum()
        torch.testing.assert_close(grad, torch.autograd.grad(plain, inputs[which])[0])
