"""PEFT adapts the fused network and fused feed-forwards of transformers as it does plain ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, fuse

# The partners' own: each deprecates something of another.
pytestmark = pytest.mark.filterwarnings("ignore")
peft = pytest.importorskip("peft")

X = torch.linspace(-1, 1, 8 * 6).reshape(8, 6).sin()
TOKENS = torch.arange(2, 12).reshape(2, 5)


def opt():
    transformers = pytest.importorskip("transformers")
    config = transformers.OPTConfig(
        vocab_size=50,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        word_embed_proj_dim=16,
        dropout=0.0,
    )
    return transformers.OPTModel(config)


def t5():
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=50,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        feed_forward_proj="relu",
        dropout_rate=0.0,
    )
    return transformers.T5Model(config)


def net():
    return TwoLayerNet(6, 9, 4)


def fused_net(plain):
    return FusedTwoLayer.from_linears(plain.linear1, plain.linear2)


def fused_in_place(plain):
    assert all(site.fused for site in fuse(plain))
    return plain


CASES = {
    "FusedTwoLayer": (net, fused_net, ("linear1", "linear2"), lambda m: m(X)),
    "opt": (opt, fused_in_place, ("fc1", "fc2"), lambda m: m(input_ids=TOKENS)[0]),
    "t5": (
        t5,
        fused_in_place,
        ("wi", "wo"),
        lambda m: m(input_ids=TOKENS, decoder_input_ids=TOKENS)[0],
    ),
}
WHICH = {"both": (0, 1), "first": (0,), "second": (1,)}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    make, fused, names, run = request.param
    torch.manual_seed(0)
    plain = make()
    return fused(copy.deepcopy(plain)), plain, names, run


def adapted(model, config):
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(model, config)
    for name, p in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p, std=0.3)  # as after some training; it starts at zero
    return wrapped


def assert_same_results(models, run):
    outputs, gradients = [], []
    for model in models:
        model.zero_grad()
        y = run(model)
        outputs.append(y)
        if y.requires_grad:
            y.square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    assert list(gradients[0]) == list(gradients[1])
    for name, expected in gradients[1].items():
        ours = gradients[0][name]
        assert (ours is None) == (expected is None), name
        if expected is not None:
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    return outputs[0], gradients[0]


@pytest.mark.parametrize("which", WHICH.values(), ids=WHICH)
def test_lora(case, which):
    fused, plain, names, run = case
    before = run(plain)
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=[names[i] for i in which])
    models = [adapted(model, config) for model in (fused, plain)]
    with_adapters, gradients = assert_same_results(models, run)
    assert gradients
    assert all(g is not None and g.any() for g in gradients.values())
    assert not torch.allclose(with_adapters, before)

    outputs = []
    for model in models:
        with model.disable_adapter():
            outputs.append(run(model))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(outputs[0], before)

    for model in models:
        model.merge_adapter()
    merged, _ = assert_same_results(models, run)
    torch.testing.assert_close(merged, with_adapters, rtol=1e-3, atol=1e-4)
    for model in models:
        model.unmerge_adapter()
    unmerged, _ = assert_same_results(models, run)
    torch.testing.assert_close(unmerged, with_adapters, rtol=1e-3, atol=1e-4)

    freed = [model.merge_and_unload() for model in models]
    for model in freed:
        model.requires_grad_(True)
    final, _ = assert_same_results(freed, run)
    torch.testing.assert_close(final, with_adapters, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig", "VeraConfig", "dora"])
def test_other_adapters(kind):
    torch.manual_seed(0)
    plain = net()
    fused = fused_net(copy.deepcopy(plain))
    targets = ["linear1", "linear2"]
    config = {
        "IA3Config": lambda: peft.IA3Config(target_modules=targets, feedforward_modules=targets),
        "LoHaConfig": lambda: peft.LoHaConfig(r=2, target_modules=targets),
        "VeraConfig": lambda: peft.VeraConfig(r=2, target_modules=["linear1"]),
        "dora": lambda: peft.LoraConfig(r=2, use_dora=True, target_modules=targets),
    }[kind]()
    assert_same_results([adapted(model, config) for model in (fused, plain)], lambda m: m(X))


def test_a_trained_adapter_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    plain = net()
    models = fused_net(copy.deepcopy(plain)), copy.deepcopy(plain)
    config = peft.LoraConfig(r=3, target_modules=["linear1", "linear2"])
    trained = [adapted(model, config) for model in models]
    for model in trained:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(X).square().mean().backward()
            optimizer.step()
    expected, _ = assert_same_results(trained, lambda m: m(X))
    trained[0].save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path)
    torch.testing.assert_close(loaded(X), expected.detach(), rtol=1e-4, atol=1e-5)


def test_layers_hooked_by_accelerate():
    """It replaces the forward of each layer by one that fetches the weights first."""
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    plain = net()
    fused = fused_net(copy.deepcopy(plain))
    expected = plain(X)
    accelerate.cpu_offload(fused, execution_device=torch.device("cpu"))
    assert fused.linear1.weight.is_meta
    torch.testing.assert_close(fused(X), expected)
