"""What PyTorch users do to modules and gradients, done to the fused module as to the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, TwoLayerNet


@pytest.fixture
def pair():
    """The fused network, the plain one with the same parameters, and an input."""
    torch.manual_seed(0)
    plain, fused = TwoLayerNet(6, 9, 4), FusedTwoLayer(6, 9, 4)
    fused.load_state_dict(plain.state_dict())
    return fused, plain, torch.randn(7, 6)


def backward(model, x):
    model(x).square().sum().backward()


def assert_same_gradients(fused, plain, **tolerance):
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in fused.named_parameters()] == names
    for (name, p), q in zip(fused.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            assert p.grad.dtype == q.grad.dtype, name
            torch.testing.assert_close(p.grad, q.grad, **tolerance)


# ---- parameters that are something else ----


@pytest.mark.parametrize("layer", ["linear1", "linear2"])
@pytest.mark.parametrize(
    "change",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda m: parametrize.register_parametrization(m, "weight", nn.Tanh()),
        lambda m: parametrize.register_parametrization(m, "bias", nn.Softplus()),
        lambda m: prune.l1_unstructured(m, "weight", amount=0.3),
        lambda m: prune.random_structured(m, "weight", amount=2, dim=0),
        lambda m: prune.l1_unstructured(m, "bias", amount=1),
    ],
    ids=["weight_norm", "spectral_norm", "tanh", "bias", "l1", "structured", "pruned_bias"],
)
def test_parametrized_and_pruned(pair, layer, change):
    fused, plain, x = pair
    for model in (fused, plain):
        torch.manual_seed(1)
        change(model.get_submodule(layer))
        model.eval()  # spectral_norm iterates at each call in training
        backward(model, x)
    torch.testing.assert_close(fused(x), plain(x))
    assert_same_gradients(fused, plain)


def test_a_mask_made_permanent(pair):
    fused, plain, x = pair
    for model in (fused, plain):
        prune.l1_unstructured(model.linear1, "weight", amount=0.3)
        backward(model, x)
        prune.remove(model.linear1, "weight")
    assert int((fused.linear1.weight == 0).sum()) == round(0.3 * 54)
    torch.testing.assert_close(fused(x), plain(x))


def test_parameters_swapped_for_others(pair):
    fused, plain, x = pair
    other = nn.Linear(6, 9)
    fused.linear1, plain.linear1 = other, other
    torch.testing.assert_close(fused(x), plain(x))


def test_a_module_swapped_in_a_model(pair):
    _, plain, x = pair
    model = nn.Sequential(nn.Linear(6, 6), plain)
    expected = model(x)
    model.set_submodule("1", FusedTwoLayer.from_linears(plain.linear1, plain.linear2))
    torch.testing.assert_close(model(x), expected)


def test_tensors_swapped_under_the_parameters(pair):
    fused, _, x = pair
    torch.utils.swap_tensors(fused.linear2.weight, nn.Parameter(torch.zeros(4, 9)))
    torch.testing.assert_close(fused(x), fused.linear2.bias.expand(7, 4))


def test_conversion_that_swaps_parameters(pair):
    """With this switch ``nn.Module.to`` swaps tensors under the parameters instead of ``.data``."""
    fused, plain, x = pair
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        for model in (fused, plain):
            model.double()
            model.load_state_dict(model.state_dict())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert fused.linear1.weight.dtype == torch.float64
    torch.testing.assert_close(fused(x.double()), plain(x.double()))


def test_load_with_assign(pair):
    _, plain, x = pair
    fresh = FusedTwoLayer(6, 9, 4, device="meta")
    fresh.load_state_dict(plain.state_dict(), assign=True)
    torch.testing.assert_close(fresh(x), plain(x))


def test_state_dict_hooks(pair):
    fused, _, _ = pair
    seen = []
    fused.register_state_dict_pre_hook(lambda *_: seen.append("before"))
    fused.register_state_dict_post_hook(lambda *_: seen.append("after"))
    fused.register_load_state_dict_pre_hook(lambda *_: seen.append("before loading"))
    fused.register_load_state_dict_post_hook(lambda *_: seen.append("after loading"))
    fused.load_state_dict(fused.state_dict())
    assert seen == ["before", "after", "before loading", "after loading"]


def test_skip_init_and_deferred_materialisation():
    skipped = nn.utils.skip_init(FusedLinearReLU, 6, 9)
    assert skipped.weight.shape == (9, 6)
    model = FusedTwoLayer(6, 9, 4, device="meta").to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    torch.testing.assert_close(model(torch.ones(1, 6)), torch.full((1, 4), 9 * 7 + 1.0))


# ---- gradients ----


def test_gradients_are_added_in_place(pair):
    fused, plain, x = pair
    for model in (fused, plain):
        backward(model, x)
    buffers = [p.grad for p in fused.parameters()]
    for model in (fused, plain):
        backward(model, x)
    assert all(p.grad is b for p, b in zip(fused.parameters(), buffers, strict=True))
    assert_same_gradients(fused, plain)


def test_hooks_on_parameters_and_outputs(pair):
    fused, plain, x = pair
    for model in (fused, plain):
        model.linear1.weight.register_hook(lambda g: 2 * g)
        model.linear2.bias.register_hook(lambda g: torch.zeros_like(g))
        model.register_full_backward_hook(lambda m, gx, gy: None)
        inputs = x.clone().requires_grad_()
        y = model(inputs)
        y.register_hook(lambda g: 3 * g)
        y.sum().backward()
    assert_same_gradients(fused, plain)
    assert not fused.linear2.bias.grad.any()


def test_post_accumulate_hooks_run_once_each(pair):
    fused, _, x = pair
    seen = []
    for name, p in fused.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: seen.append(name))
    backward(fused, x)
    assert sorted(seen) == sorted(name for name, _ in fused.named_parameters())


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not"])
def test_activation_checkpointing(pair, reentrant):
    fused, plain, x = pair
    x.requires_grad_()
    for model in (fused, plain):
        checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
    assert_same_gradients(fused, plain)


def test_saved_tensors_kept_elsewhere(pair):
    fused, plain, x = pair
    with torch.autograd.graph.save_on_cpu():
        backward(fused, x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), torch.from_numpy):
        backward(plain, x)
    assert_same_gradients(fused, plain)


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:Error detected")
def test_anomaly_mode_names_the_function(pair):
    fused, _, x = pair
    with torch.autograd.detect_anomaly(check_nan=True):
        backward(fused, x)
        y = fused(x * float("nan"))
        with pytest.raises(RuntimeError, match="TwoLayerBackward"):
            y.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_dtypes_and_gradients(pair, dtype):
    fused, plain, x = pair
    x.requires_grad_()
    outputs = []
    for model in (fused, plain):
        with torch.autocast("cpu", dtype):
            y = model(x)
        outputs.append(y)
        y.float().square().sum().backward()
    assert outputs[0].dtype == outputs[1].dtype == dtype
    assert_same_gradients(fused, plain, rtol=5e-2, atol=5e-2)


def test_autocast_can_be_left_for_a_part(pair):
    fused, _, x = pair
    with torch.autocast("cpu", torch.bfloat16):
        inner = fused(x)
        with torch.autocast("cpu", enabled=False):
            assert fused(inner.float()[:, :1].expand(7, 6)).dtype == torch.float32
    assert inner.dtype == torch.bfloat16


def test_gradient_scaling(pair):
    fused, plain, x = pair
    for model in (fused, plain):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = model(x).float().square().mean()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
    for p, q in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-2)


def test_gradient_scaling_skips_a_step_that_overflows(pair):
    fused, _, x = pair
    before = copy.deepcopy(fused.state_dict())
    optimizer = torch.optim.SGD(fused.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale((fused(x) * float("inf")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**9
    for name, value in fused.state_dict().items():
        assert torch.equal(value, before[name])
