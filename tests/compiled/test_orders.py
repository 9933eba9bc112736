"""What the machine code of an arrival may not leave out, and how it is read."""

from __future__ import annotations

import pytest
import triton
import triton.language as tl

from twolayer_kernels.backends.triton import narrow

from . import configurations, gates, orders
from .planting import plant

# As the compiler writes it for sm_90, without what lies between.
ARRIVAL = """
        /*0010*/              @!P6 STG.E.128 desc[UR16][R76.64], R20 ;
        /*0020*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0030*/               @P5 BRA `(.L_x_5) ;
        /*0040*/               @P6 MEMBAR.ALL.GPU ;
        /*0050*/               @P6 ERRBAR;
        /*0060*/               @P6 ATOMG.E.ADD.STRONG.GPU PT, R9, desc[UR16][R60.64], R9 ;
        /*0070*/               @P6 CCTL.IVALL ;
.L_x_5:
        /*0080*/                   BSYNC B0 ;
        /*0090*/                   BAR.SYNC.DEFER_BLOCKING 0x1 ;
        /*00a0*/               @P6 EXIT ;
        /*00b0*/              @!P6 STG.E desc[UR16][R60.64], RZ ;
        /*00c0*/                   LDG.E R22, desc[UR10][R16.64] ;
.L_x_6:
        /*00d0*/              @!P1 LDG.E.128.STRONG.GPU R8, desc[UR16][R28.64] ;
        /*00e0*/              @!P2 LDG.E.128.STRONG.GPU R12, desc[UR16][R30.64] ;
        /*00f0*/                   EXIT ;
"""
STORE, BARRIER, FENCE, COUNT, INVALIDATION, SECOND_BARRIER = (
    next(line + "\n" for line in ARRIVAL.splitlines() if address in line)
    for address in ("/*0010*/", "/*0020*/", "/*0040*/", "/*0060*/", "/*0070*/", "/*0090*/")
)


def moved(line, behind):
    return ARRIVAL.replace(line, "").replace(behind, behind + line)


PLANTED = {
    "no store": ARRIVAL.replace(STORE, ""),
    "no barrier after the store": ARRIVAL.replace(BARRIER, ""),
    "no fence": ARRIVAL.replace(FENCE, ""),
    "a fence for the threads of one program": ARRIVAL.replace("ALL.GPU", "ALL.CTA"),
    "no invalidation": ARRIVAL.replace(INVALIDATION, ""),
    "no barrier after the count": ARRIVAL.replace(SECOND_BARRIER, ""),
    "shares read through the first cache": ARRIVAL.replace("128.STRONG.GPU", "128"),
    "a barrier for some": ARRIVAL.replace("     BAR.SYNC", " @P6 BAR.SYNC"),
    "a fence in other threads": ARRIVAL.replace("@P6 MEMBAR", "@P5 MEMBAR"),
    "an invalidation in other threads": ARRIVAL.replace("@P6 CCTL", "@!P6 CCTL"),
    "stored after the barrier": moved(STORE, BARRIER),
    "stored after the count": moved(STORE, COUNT),
    "the fence before the barrier": moved(BARRIER, FENCE),
    "the fence after the count": moved(FENCE, COUNT),
    "the barrier before the invalidation": moved(INVALIDATION, SECOND_BARRIER),
    "a jump past the fence": ARRIVAL.replace(COUNT, ".L_x_5:\n" + COUNT),
}


def test_an_arrival_in_order():
    found = orders.accesses(ARRIVAL)
    assert found == "SBFAIJBSWJR"
    assert orders.counts(found) == 1
    assert orders.out_of_order(found) == []


def test_several_arrivals_are_each_looked_at():
    found = orders.accesses(ARRIVAL + PLANTED["no fence"] + ARRIVAL)
    assert orders.counts(found) == 3
    (complaint,) = orders.out_of_order(found)
    assert "strong read, store, barrier, count, invalidation" in complaint


@triton.jit
def _counted_without_a_barrier(arrived, parts):
    before = tl.atomic_add(arrived, 1, sem="acq_rel")
    last = before == parts - 1
    if last:
        tl.store(arrived, 0)
    return last


@triton.jit
def _counted_without_a_fence(arrived, parts):
    tl.debug_barrier()
    before = tl.atomic_add(arrived, 1, sem="relaxed")
    last = before == parts - 1
    if last:
        tl.store(arrived, 0)
    return last


def broken_with(count, arch, monkeypatch):
    """What the gates say of a narrow backward whose programs count themselves by ``count``.

    In float32 one of its barriers is there because it was asked for; before most counts the
    compiler has one of its own, for the memory that threads share.
    """
    plant(monkeypatch, narrow, "is_last", count)
    c = next(
        c
        for c in configurations.shipped(arch)
        if (c.kernel, c.case, c.precision) == ("narrow_backward", "parts", "ieee")
    )
    return gates.broken(c, configurations.compiled(c))


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize(
    ("count", "faults"),
    [(narrow.is_last, 0), (_counted_without_a_barrier, 1), (_counted_without_a_fence, 4)],
    ids=["as it is", "without a barrier", "without a fence"],
)
def test_arrivals_of_a_compiled_kernel(monkeypatch, count, faults, arch):
    complaints = broken_with(count, arch, monkeypatch)
    assert len(complaints) == faults
    assert all("counts an arrival out of order" in complaint for complaint in complaints)


@pytest.mark.parametrize("code", PLANTED.values(), ids=PLANTED)
def test_an_arrival_out_of_order(code):
    assert code != ARRIVAL
    found = orders.accesses(code)
    assert orders.counts(found) == 1
    assert len(orders.out_of_order(found)) == 1
