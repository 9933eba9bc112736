"""Which CUDA devices the Triton kernels serve, by name and by default; no GPU is needed."""

from __future__ import annotations

import pytest
import torch

triton = pytest.importorskip("twolayer_kernels.backends.triton")

from twolayer_kernels.backends.triton import measurements  # noqa: E402 - after the skip

A100, RTX, B200 = (8, 0), (8, 9), (10, 0)


@pytest.fixture
def devices(monkeypatch):
    """Puts devices of these compute capabilities in the machine."""

    def put(*capabilities):
        names = {A100: "an A100", RTX: "an RTX", B200: "a B200"}
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[capabilities[index]])
        monkeypatch.setattr(
            triton,
            "device_at",
            lambda index: triton.launch.Device(
                names[capabilities[index]], 10 * capabilities[index][0], 100
            ),
        )
        triton.unsupported_device.cache_clear()

    yield put
    triton.unsupported_device.cache_clear()


@pytest.fixture
def measured(monkeypatch):
    row = measurements.Row("16bit", 64, 64, 64, 64, ours=10.0, torch=12.0)
    monkeypatch.setattr(
        measurements, "rows_for", lambda name, precision: (row,) * (precision == "16bit")
    )


def test_one_device_that_is_served_is_enough(devices):
    devices(A100, RTX)
    assert triton.unsupported("cuda", torch.bfloat16) is None
    assert triton.unsupported_device(0) is None
    assert "an RTX has (8, 9)" in triton.unsupported_device(1)


def test_without_one_the_name_is_refused(devices):
    devices(RTX, RTX)
    assert "compute capability 8.0, 9.0" in triton.unsupported("cuda", torch.bfloat16)


def test_a_call_on_another_device_refuses(devices):
    devices(A100, RTX)

    class OnTheOther:
        is_cuda = True
        device = torch.device("cuda:1")

    with pytest.raises(NotImplementedError, match=r"backend='triton' cannot run this.*an RTX"):
        triton.linear_relu_forward(OnTheOther(), None, None)


def test_measurements_choose_for_the_devices_that_are_served(devices, measured):
    devices(A100, RTX)
    assert triton.may_be_faster(0, torch.bfloat16)
    assert not triton.may_be_faster(0, torch.float32)
    assert not triton.may_be_faster(1, torch.bfloat16)


def test_on_blackwell_they_run_by_name_alone(devices, measured):
    devices(B200)
    assert triton.unsupported("cuda", torch.bfloat16) is None
    assert not triton.may_be_faster(0, torch.bfloat16)
    faster, reason = triton.verdict(torch.ones(1, 1), 64, 64, 64, 64)
    assert not faster
    assert "only by name" in reason
