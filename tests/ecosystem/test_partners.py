"""Other libraries train, save and hold the fused network as they do the plain one."""

from __future__ import annotations

import inspect
import types

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, fuse, unfuse
from twolayer_kernels.layers import TwoLayerForward

# The partners' own: each deprecates something of another.
pytestmark = pytest.mark.filterwarnings("ignore")

X, Y = torch.linspace(-1, 1, 32 * 6).reshape(32, 6).sin(), torch.linspace(0, 2, 32 * 3).cos()
Y = Y.reshape(32, 3)
LR, STEPS = 0.1, 4


@pytest.fixture
def pair():
    torch.manual_seed(0)
    plain, fused = TwoLayerNet(6, 9, 3), FusedTwoLayer(6, 9, 3)
    fused.load_state_dict(plain.state_dict())
    return fused, plain


def train_by_hand(model):
    """Whole-batch steps of SGD on the mean squared error."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), Y).backward()
        optimizer.step()


def assert_same_parameters(fused, plain):
    for (name, p), q in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), msg=lambda m, name=name: f"{name}: {m}")


def test_lightning(pair, tmp_path):
    lightning = pytest.importorskip("lightning")
    fused, plain = pair

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = fused

        def training_step(self, batch, _):
            x, y = batch
            return nn.functional.mse_loss(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR)

    trainer = lightning.Trainer(
        max_epochs=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Task(), DataLoader(TensorDataset(X, Y), batch_size=32))
    train_by_hand(plain)
    assert_same_parameters(fused, plain)


def test_skorch(pair):
    skorch = pytest.importorskip("skorch")
    fused, plain = pair
    net = skorch.NeuralNetRegressor(
        fused, max_epochs=STEPS, lr=LR, batch_size=-1, train_split=None, verbose=0
    )
    net.fit(X.numpy(), Y.numpy())
    train_by_hand(plain)
    assert_same_parameters(net.module_, plain)
    torch.testing.assert_close(torch.from_numpy(net.predict(X.numpy())), plain(X).detach())


def test_accelerate(pair):
    accelerate = pytest.importorskip("accelerate")
    fused, plain = pair
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.SGD(fused.parameters(), lr=LR)
    loader = DataLoader(TensorDataset(X, Y), batch_size=32)
    model, optimizer, loader = accelerator.prepare(fused, optimizer, loader)
    for _ in range(STEPS):
        for x, y in loader:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.mse_loss(model(x), y))
            optimizer.step()
    train_by_hand(plain)
    assert_same_parameters(accelerator.unwrap_model(model), plain)


def test_the_trainer_of_transformers(pair, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    fused, plain = pair

    class Samples(Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, i):
            return {"x": X[i], "labels": Y[i]}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = fused

        def forward(self, x, labels):
            y = self.net(x)
            return {"loss": nn.functional.mse_loss(y, labels), "logits": y}

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        per_device_train_batch_size=32,
        learning_rate=LR,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model=Model(), args=arguments, train_dataset=Samples())
    trainer.train()
    train_by_hand(plain)
    assert_same_parameters(fused, plain)


def test_safetensors(pair, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    fused, plain = pair
    safetensors.save_model(plain, tmp_path / "plain.safetensors")
    fresh = FusedTwoLayer(6, 9, 3)
    safetensors.load_model(fresh, tmp_path / "plain.safetensors")
    assert_same_parameters(fresh, plain)
    safetensors.save_file(fused.state_dict(), tmp_path / "fused.safetensors")
    plain.load_state_dict(safetensors.load_file(tmp_path / "fused.safetensors"))
    assert_same_parameters(fused, plain)


def logits(model, **inputs):
    model.eval()
    with torch.no_grad():
        return model(**inputs)[0]


def test_fuse_in_opt():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=50,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        word_embed_proj_dim=16,
    )
    model = transformers.OPTModel(config)
    tokens = torch.arange(2, 12).reshape(2, 5)
    expected, keys = logits(model, input_ids=tokens), list(model.state_dict())
    report = fuse(model)
    assert [site.fused for site in report] == [True, True], report
    torch.testing.assert_close(logits(model, input_ids=tokens), expected)
    assert list(model.state_dict()) == keys
    assert unfuse(model) == 2
    torch.testing.assert_close(logits(model, input_ids=tokens), expected)


def test_fuse_in_t5():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=50,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        feed_forward_proj="relu",
    )
    model = transformers.T5Model(config)
    tokens = torch.arange(2, 12).reshape(2, 5)
    inputs = {"input_ids": tokens, "decoder_input_ids": tokens}
    expected = logits(model, **inputs)
    report = fuse(model)
    assert [site.fused for site in report] == [True] * 4, report
    torch.testing.assert_close(logits(model, **inputs), expected)


def test_a_stateless_layer_of_the_hub_kind(pair):
    """What ``kernels`` asks of a layer: no constructor, no members of its own, the same forward."""
    _, plain = pair
    members = {name for name, _ in inspect.getmembers(TwoLayerForward)}
    known = {name for name, _ in inspect.getmembers(nn.Module)}
    assert members - known == {"has_backward", "can_torch_compile"}
    assert TwoLayerForward.__init__ is nn.Module.__init__
    ours, theirs = (inspect.signature(c.forward) for c in (TwoLayerForward, TwoLayerNet))
    assert list(ours.parameters) == list(theirs.parameters)

    expected = plain(X)
    plain.forward = types.MethodType(TwoLayerForward.forward, plain)
    torch.testing.assert_close(plain(X), expected)
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
    compiled(X).sum().backward()
    assert plain.linear1.weight.grad is not None
