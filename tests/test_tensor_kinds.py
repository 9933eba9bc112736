"""Every kind of tensor that can be made on a CPU, in the place of each argument: never a crash.

A kind either gives what the plain network gives or is refused by the error contract. A fault here
can end the process, so each group of kinds runs in one of its own.
"""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

REFUSED = (TypeError, ValueError, NotImplementedError)


class Sub(Tensor):
    """A subclass with torch's own __torch_function__."""


class Renaming(Tensor):
    """A subclass that changes what one of torch's functions does."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        return result * 2 if func is F.linear else result


class Wrapper(Tensor):
    """A wrapper without memory of its own, as many libraries make them."""

    @staticmethod
    def __new__(cls, inner):
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device, strides=inner.stride()
        )

    def __init__(self, inner):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        unwrap = torch.utils._pytree.tree_map_only(cls, lambda t: t.inner, (args, kwargs or {}))
        result = func(*unwrap[0], **unwrap[1])
        return torch.utils._pytree.tree_map_only(Tensor, cls, result)


class KnowsLinearOnly(Wrapper):
    """As quantized weights of torchao: it knows some operators of torch and no others."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func.namespace != "aten":
            raise NotImplementedError(f"{cls.__name__} knows no {func}")
        return super().__torch_dispatch__(func, types, args, kwargs)


class Own(nn.Parameter):
    """A subclass of Parameter, as libraries make them to hang notes on."""


def freed(t):
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


def freed_with_an_offset(t):
    flat = torch.cat([torch.zeros(5), t.flatten()])
    part = flat[5:].view(t.shape)
    flat.untyped_storage().resize_(0)
    return part


def cut(t):
    large = torch.zeros(*t.shape, 1 << 16)[..., 0]
    large.copy_(t)
    large.untyped_storage().resize_(8)
    return large


def quantized(t):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)


def fake(t):
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True).from_tensor(t)


def functional_tensor(t):
    from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode

    with FunctionalTensorMode():
        return FunctionalTensor.to_functional(t)


def masked(t):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.masked.masked_tensor(t, t > -10)


def dtensor(t):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    # Gloo's thread drops its tensors some time after a collective is done: where Python has ended
    # by then, the process aborts (so with plain torch alone). This group has no thread.
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
    return distribute_tensor(t, init_device_mesh("cpu", (1,)), [Replicate()])


def offset(t):
    return torch.cat([torch.zeros(3), t.flatten()])[3:].view(t.shape)


def overlapping(t):
    return t.flatten()[:1].expand(t.shape)


Kind = Callable[[Tensor], Any]

GROUPS: dict[str, dict[str, Kind]] = {
    "memory": {
        "plain": lambda t: t,
        "parameter": nn.Parameter,
        "buffer": nn.Buffer,
        "own_parameter": Own,
        "offset": offset,
        "overlapping": overlapping,
        "transposed": lambda t: t.T.contiguous().T,
        "reversed": lambda t: t.flip(0),
        "channels": lambda t: t.clone(memory_format=torch.preserve_format),
        "negative": lambda t: torch._neg_view(t),
        "imaginary": lambda t: torch.complex(t, -t).conj().imag,
        "real": lambda t: torch.complex(t, t).real,
        "lazy_clone": lambda t: torch._lazy_clone(t),
        "inference": lambda t: torch.inference_mode()(t.clone)(),
        "shared": lambda t: t.clone().share_memory_(),
        "numpy": lambda t: torch.from_numpy(t.numpy()),
        "aliased": lambda t: torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(t)),
        "zero": lambda t: torch._efficientzerotensor(t.shape),
        "freed": freed,
        "freed_with_an_offset": freed_with_an_offset,
        "cut": cut,
    },
    "dtypes": {
        "complex": lambda t: t.to(torch.complex64),
        "conjugate": lambda t: t.to(torch.complex64).conj(),
        "int": lambda t: t.int(),
        "bool": lambda t: t > 0,
        "double": lambda t: t.double(),
        "half": lambda t: t.half(),
        "float8": lambda t: t.to(torch.float8_e4m3fn),
        "quantized": quantized,
    },
    "layouts": {
        "coo": lambda t: t.to_sparse(),
        "csr": lambda t: t.to_sparse_csr() if t.dim() == 2 else t.to_sparse(),
        "mkldnn": lambda t: t.to_mkldnn(),
        "nested": lambda t: torch.nested.nested_tensor([t, t]),
        "jagged": lambda t: torch.nested.nested_tensor([t, t], layout=torch.jagged),
    },
    "devices": {
        "meta": lambda t: t.to("meta"),
        "fake": fake,
        "undefined": lambda t: None,
        "numpy_array": lambda t: t.numpy(),
        "list": lambda t: t.tolist(),
        "number": lambda t: 3.0,
    },
    "subclasses": {
        "sub": lambda t: t.as_subclass(Sub),
        "renaming": lambda t: t.as_subclass(Renaming),
        "parameter_of_sub": lambda t: nn.Parameter(t.as_subclass(Sub)),
        "wrapper": Wrapper,
        "parameter_of_wrapper": lambda t: nn.Parameter(Wrapper(t)),
        "knows_linear_only": KnowsLinearOnly,
        "masked": masked,
        "uninitialized": lambda t: nn.UninitializedParameter(),
    },
    "standing_in": {
        "functional": lambda t: torch._to_functional_tensor(t),
        "functional_tensor": functional_tensor,
        "dtensor": dtensor,
    },
}


def arguments():
    torch.manual_seed(0)
    return {
        "x": torch.randn(7, 6),
        "w1": torch.randn(9, 6),
        "w2": torch.randn(4, 9),
        "b1": torch.randn(9),
        "b2": torch.randn(4),
    }


def plain_two_layer(x, w1, w2, b1, b2):
    return F.linear(torch.relu(F.linear(x, w1, b1)), w2, b2)


def plain_linear_relu(x, w, b):
    return torch.relu(F.linear(x, w, b))


def values_of(t):
    """The numbers of a result of any kind, or what can be said of one that has none."""
    if isinstance(t, Wrapper):
        return values_of(t.inner)
    if t.is_nested:
        return [values_of(part) for part in t.unbind()]
    if hasattr(t, "full_tensor"):
        return t.full_tensor()
    if type(t).__name__ == "FunctionalTensor":
        return values_of(t.elem)
    if torch._is_functional_tensor(t):
        torch._sync(t)
        return torch._from_functional_tensor(t)
    if type(t).__name__ == "FakeTensor" or t.is_meta:
        return str((tuple(t.shape), t.dtype))
    return t.to_dense() if t.layout is not torch.strided else t


def outcome(run, given):
    """The result, its type, and the gradients of what needs one; or what was raised."""
    try:
        y = run(**given)
    except Exception as error:
        return error
    return type(y), values_of(y)


def assert_same_values(name, ours, theirs):
    if isinstance(ours, str) or isinstance(theirs, str):
        assert ours == theirs, name
    else:
        torch.testing.assert_close(ours, theirs, msg=lambda m: f"{name}: {m}")


def compare(name, ours, theirs):
    if isinstance(ours, REFUSED):
        return  # by the error contract
    if isinstance(ours, Exception):
        # What torch cannot do either, it says in its own words.
        assert type(ours) is type(theirs), f"{name}: {ours!r} is not of the error contract"
        assert str(ours) == str(theirs), f"{name}: {ours!r} is not of the error contract"
        return
    assert not isinstance(theirs, Exception), f"{name}: a result, where torch raises {theirs!r}"
    assert ours[0] is theirs[0], f"{name}: type {ours[0].__name__}, not {theirs[0].__name__}"
    assert_same_values(name, ours[1], theirs[1])


MUST_WORK = {
    *("plain", "parameter", "buffer", "own_parameter", "offset", "overlapping", "transposed"),
    *("negative", "imaginary", "real", "lazy_clone", "inference", "shared", "numpy", "aliased"),
    *("zero", "sub", "renaming", "parameter_of_sub", "wrapper", "parameter_of_wrapper"),
    *("knows_linear_only", "fake", "functional", "functional_tensor"),
}


def check_group(group):
    """Each kind in the place of each argument, of all tensors, and in a backward."""
    from twolayer_kernels.functional import linear_relu, two_layer

    for kind, make in GROUPS[group].items():
        for name in ("x", "w1", "w2", "b1", "b2", "all"):
            print(f"{kind} as {name}", file=sys.stderr, flush=True)  # the last line, if it dies
            for ours, theirs, names in (
                (two_layer, plain_two_layer, {}),
                (linear_relu, plain_linear_relu, {"w1": "w", "b1": "b"}),
            ):
                given = arguments()
                if names:
                    given = {names.get(n, n): given[n] for n in ("x", "w1", "b1")}
                own = names.get(name, name)
                if own not in given and own != "all":
                    continue
                for each in given if own == "all" else [own]:
                    try:
                        given[each] = make(given[each])
                    except (RuntimeError, ValueError):  # not of one dimension
                        break
                else:
                    if kind == "cut":  # torch reads beyond its end, and dies
                        with pytest.raises(ValueError, match="must have memory"):
                            ours(**given)
                        continue
                    results = [outcome(f, given) for f in (ours, theirs)]
                    compare(f"{kind} as {own} of {ours.__name__}", *results)
                    if kind in MUST_WORK and not isinstance(results[1], Exception):
                        assert not isinstance(results[0], Exception), (kind, own, results[0])


def check_gradients():
    """Each kind in the place of the incoming gradient."""
    from twolayer_kernels.functional import two_layer

    for kinds in GROUPS.values():
        for kind, make in kinds.items():
            print(f"{kind} as a gradient", file=sys.stderr, flush=True)
            results = []
            for run in (two_layer, plain_two_layer):
                given = {n: t.requires_grad_() for n, t in arguments().items()}
                y = run(**given)
                if kind == "cut" and run is plain_two_layer:
                    continue  # torch reads beyond its end, and dies of it now and then
                try:
                    grad = make(torch.ones(7, 4))
                    found = torch.autograd.grad(y, list(given.values()), grad)
                except Exception as error:
                    results.append(error)
                else:
                    results.append([values_of(g) for g in found])
            if kind == "cut":
                assert isinstance(results[0], ValueError), results
                continue
            ours, theirs = results
            if isinstance(ours, Exception) or isinstance(theirs, Exception):
                if kind not in ("freed", "freed_with_an_offset"):
                    assert isinstance(theirs, Exception), (kind, ours)
                continue
            for g, h in zip(ours, theirs, strict=True):
                assert_same_values(kind, g, h)


@pytest.mark.parametrize("group", [*GROUPS, "gradients"])
def test_kinds(group):
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_tensor_kinds", group],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stderr[-3000:]}"


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("ignore")
    try:
        check_gradients() if sys.argv[1] == "gradients" else check_group(sys.argv[1])
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
