"""Checkpoints: one file that plain torch loads, and from which a training goes on to the same bits.

``torch.load(path, weights_only=True)`` gives a dict. ``model`` is the state dict
of a ``TwoLayerNet`` (``linear1.weight``, ...); ``x = (raw - feature_mean) /
feature_scale`` goes in; ``classes[y.argmax(1)]``, or for regression
``y * target_scale + target_mean``, comes out. Of a table whose columns were prepared, ``raw`` are
the numbers, where one is missing, and the features of text; ``preparation`` says in JSON which.
The plain network and the one that ``fit`` trains stand beside it; a file from before ``fit`` was a
side lacks the latter, which then goes on from the fused one, the same but for rounding.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .data import Data
from .failures import BadInput
from .outputs import whole_file
from .preparation import Preparation
from .training import LOSSES, Config, Training

FORMAT = 1
_KINDS: dict[str, type] = {
    "format": int,
    "config": dict,
    "data": dict,
    "model": dict,
    "optimizer": dict,
    "plain_model": dict,
    "plain_optimizer": dict,
    "rng": torch.Tensor,
    "epoch": int,
    "losses": list,
    "plain_losses": list,
}
# Of the side that ``fit`` trains: all of them, or in an older file none.
_FIT_KINDS: dict[str, type] = {"fit_model": dict, "fit_optimizer": dict, "fit_losses": list}
Checkpoint = dict[str, Any]


def fingerprint(data: Data) -> str:
    """Tells the same training data from others, to the bit."""
    digest = hashlib.sha256()
    for tensor in (data.x_train, data.y_train):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, training: Training) -> None:
    """Writes the whole file or, where that fails, leaves the one that was there.

    Raises:
        BadInput: the path cannot be written.
    """
    data = training.data
    content: Checkpoint = {
        "format": FORMAT,
        "library": f"twolayer_kernels {__version__}",
        "model": training.fused.model.state_dict(),
        "optimizer": training.fused.optimizer.state_dict(),
        "plain_model": training.plain.model.state_dict(),
        "plain_optimizer": training.plain.optimizer.state_dict(),
        "fit_model": training.fitted.model.state_dict(),
        "fit_optimizer": training.fitted.optimizer.state_dict(),
        "rng": training.generator.get_state(),
        "epoch": training.epoch,
        "step": training.epoch * training.steps_per_epoch,
        "losses": training.fused.losses,
        "plain_losses": training.plain.losses,
        "fit_losses": training.fitted.losses,
        "config": {
            **asdict(training.config),
            "in_features": data.in_features,
            "out_features": data.out_features,
            "threads": torch.get_num_threads(),
        },
        "data": {"name": data.name, "task": data.task, "fingerprint": fingerprint(data)},
        "classes": data.classes,
        "feature_mean": data.feature_mean,
        "feature_scale": data.feature_scale,
        "target_mean": data.target_mean,
        "target_scale": data.target_scale,
        "preparation": data.preparation.to_json() if data.preparation is not None else None,
    }
    with whole_file(path) as unfinished:
        torch.save(content, unfinished)


def load(path: Path) -> Checkpoint:
    """The content of a checkpoint, with every part in place.

    Raises:
        BadInput: the file cannot be read, or is no checkpoint of :func:`save`.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error
    with file:
        try:
            content = torch.load(file, weights_only=True, map_location="cpu")
        except Exception as error:  # a broken file makes torch.load raise nearly anything
            raise BadInput(f"{path}: is no readable torch checkpoint, or a damaged one") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds a {type(content).__name__}, needs a checkpoint of --save")
    if not _FIT_KINDS.keys() & content.keys():
        fused = {key: content.get(key.removeprefix("fit_")) for key in _FIT_KINDS}
        content = {**content, **copy.deepcopy(fused)}  # an optimizer takes tensors as they are
    for key, kind in (_KINDS | _FIT_KINDS).items():
        if not isinstance(content.get(key), kind):
            raise BadInput(f"{path}: is no checkpoint of --save: its {key!r} is missing or broken")
    if content["epoch"] < 0:
        raise BadInput(f"{path}: is no checkpoint of --save: it has {content['epoch']} epochs")
    if content["format"] != FORMAT:
        raise BadInput(f"{path}: has format {content['format']}, this version reads {FORMAT}")
    return content


def config_of(path: Path, content: Checkpoint) -> Config:
    """The config that the checkpoint was trained with.

    Raises:
        BadInput: a part of it is missing or makes no sense.
    """
    config = content["config"]
    sane: dict[str, Callable[[Any], bool]] = {
        "hidden_features": lambda value: type(value) is int and value > 0,
        "batch_size": lambda value: type(value) is int and 0 < value < 2**63,
        "lr": lambda value: type(value) is float and 0 < value < float("inf"),
        "seed": lambda value: type(value) is int and 0 <= value < 2**63,
        "loss": lambda value: type(value) is str and value in LOSSES,
    }
    for name, is_sane in sane.items():
        if not is_sane(config.get(name)):
            raise BadInput(f"{path}: is no checkpoint of --save: its config has no usable {name}")
    return Config(**{name: config[name] for name in sane})


def preparation_of(path: Path, content: Checkpoint) -> Preparation | None:
    """How features came from the columns; ``None`` in a checkpoint that does not say.

    Raises:
        BadInput: it is damaged.
    """
    text = content.get("preparation")
    if text is None:
        return None
    try:
        return Preparation.from_json(text)
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from error


def classes_of(path: Path, content: Checkpoint) -> list[int] | list[str] | None:
    """What the outputs stand for; ``None`` for a regression.

    Raises:
        BadInput: these are no classes.
    """
    classes: Any = content.get("classes")
    if classes is None:
        return None
    kinds = {type(name) for name in classes} if isinstance(classes, list) else set()
    if kinds not in ({int}, {str}) or len(set(classes)) != len(classes):
        raise BadInput(f"{path}: is no checkpoint of --save: its 'classes' are broken")
    found: list[int] | list[str] = classes
    return found


def _is_state_of(saved: Any, optimizer: torch.optim.Optimizer, epochs: int) -> bool:
    """Whether ``load_state_dict`` makes a working Adam of it, which takes what it gets."""
    (group,) = optimizer.state_dict()["param_groups"]
    parameters = optimizer.param_groups[0]["params"]

    def is_moment(value: Any, p: torch.Tensor) -> bool:
        return isinstance(value, torch.Tensor) and (value.shape, value.dtype, value.layout) == (
            p.shape,
            p.dtype,
            p.layout,
        )

    try:
        (saved_group,) = saved["param_groups"]
        state = saved["state"]
        return (
            all(type(saved_group[name]) is type(value) for name, value in group.items())
            and saved_group["params"] == group["params"]
            and state.keys() == (set(group["params"]) if epochs else set())
            and all(
                isinstance(state[i]["step"], torch.Tensor)
                and state[i]["step"].dtype == torch.float32
                and state[i]["step"].numel() == 1
                and is_moment(state[i]["exp_avg"], p)
                and is_moment(state[i]["exp_avg_sq"], p)
                for i, p in enumerate(parameters)
                if epochs
            )
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _check_fit(path: Path, content: Checkpoint, training: Training) -> None:
    saved, data = content["config"], training.data
    for name, word in (("in_features", "features"), ("out_features", "outputs")):
        if saved.get(name) != getattr(data, name):
            raise BadInput(
                f"{path}: was trained on data with {saved.get(name)} {word},"
                f" {data.name} has {getattr(data, name)}"
            )
    if (saved["loss"] == "cross_entropy") != (data.task == "classification"):
        raise BadInput(f"{path}: its loss {saved['loss']} is none for a {data.task}")
    if content["data"].get("fingerprint") != fingerprint(data):
        raise BadInput(f"{path}: was trained on other samples than those of {data.name}")
    for part, side in (
        ("model", training.fused),
        ("plain_model", training.plain),
        ("fit_model", training.fitted),
    ):
        for name, tensor in side.model.state_dict().items():
            found = content[part].get(name)
            if not isinstance(found, torch.Tensor) or found.shape != tensor.shape:
                shape = tuple(found.shape) if isinstance(found, torch.Tensor) else "nothing"
                raise BadInput(
                    f"{path}: {part} needs {name} of shape {tuple(tensor.shape)}, got {shape}"
                )
        optimizer, losses = part.replace("model", "optimizer"), part.replace("model", "losses")
        if not _is_state_of(content[optimizer], side.optimizer, content["epoch"]):
            raise BadInput(f"{path}: {optimizer} is no state of this network's optimizer")
        if [type(loss) for loss in content[losses]] != [float] * content["epoch"]:
            raise BadInput(f"{path}: {losses} are not those of {content['epoch']} epochs")


def restore(path: Path, content: Checkpoint, training: Training) -> None:
    """Puts ``training`` where the checkpoint's stood; it goes on from there to the same bits.

    Raises:
        BadInput: sizes or data differ from the checkpoint's.
    """
    _check_fit(path, content, training)
    try:
        for side, part in (
            (training.fused, ""),
            (training.plain, "plain_"),
            (training.fitted, "fit_"),
        ):
            side.model.load_state_dict(content[f"{part}model"])
            side.optimizer.load_state_dict(content[f"{part}optimizer"])
            side.losses = list(content[f"{part}losses"])
        training.generator.set_state(content["rng"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise BadInput(f"{path}: its state does not fit this training: {line}") from error
    training.epoch = content["epoch"]
