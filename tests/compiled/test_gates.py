"""The configurations that ship, compiled: no spills, matrix units at work, memory that fits."""

from __future__ import annotations

import pytest

from . import configurations, cubins, gates, stub

TESTED = [c for arch in stub.SHARED_LIMITS for c in configurations.tested(arch)]


@pytest.fixture(scope="module")
def compiled(request):
    """What the compiler makes of the selected configurations, by configuration."""
    module = request.node
    wanted = [
        item.callspec.params["configuration"]
        for item in request.session.items
        if item.getparent(pytest.Module) is module and hasattr(item, "callspec")
        if "configuration" in item.callspec.params
    ]
    return dict(zip(wanted, configurations.compile_all(wanted), strict=True))


@pytest.mark.parametrize("configuration", TESTED, ids=str)
def test_compiled(configuration, compiled):
    assert gates.broken(configuration, compiled[configuration]) == []


def test_each_configuration_has_a_name_of_its_own():
    shipped = [c for arch in stub.SHARED_LIMITS for c in configurations.shipped(arch)]
    assert len({str(configuration) for configuration in shipped}) == len(shipped)


def a_configuration(**fields):
    usual = configurations.Configuration(90, "linear", "16bit", None, "plain", "descriptors", 0)
    return usual._replace(**fields)


def resources(stack=0, shared=0, **instructions):
    return cubins.Resources(168, stack, shared, 8, instructions)


GOOD = {"HGMMA": 4, "UTMALDG": 2, "UTMASTG": 1}
PLANTED = {
    "nothing": (a_configuration(), resources(**GOOD), None),
    "stack": (a_configuration(), resources(8, **GOOD), "spills"),
    "stack of odd rows": (a_configuration(operands="odd"), resources(1032, HGMMA=4), "spills"),
    "local store": (a_configuration(), resources(**GOOD, STL=1), "spills"),
    "local load": (a_configuration(), resources(**GOOD, LDL=1), "spills"),
    "shared memory": (a_configuration(), resources(0, 232449, **GOOD), "shared memory"),
    "did not compile": (a_configuration(), "out of resource", "out of resource"),
    "older matrix unit": (
        a_configuration(operands="odd"),
        resources(HMMA=4),
        "leaves the matrix units idle",
    ),
    "matrix unit of sm_90 on sm_100": (
        a_configuration(arch=100),
        resources(**GOOD),
        "leaves the matrix units idle",
    ),
    "scalar product": (a_configuration(), resources(**GOOD, FFMA=1), "beside the matrix units"),
    "TF32 for ieee": (
        a_configuration(kernel="narrow_forward", precision="ieee", operands=""),
        resources(HGMMA=1, FFMA=1, FADD=1, LDGSTS=1),
        "not to be rounded",
    ),
    "no product for ieee": (
        a_configuration(kernel="narrow_forward", precision="ieee", operands=""),
        resources(FADD=1, LDGSTS=1),
        "no FFMA",
    ),
    "one chain for ieee": (
        a_configuration(kernel="narrow_forward", precision="ieee", operands=""),
        resources(FFMA=1, LDGSTS=1),
        "no FADD",
    ),
    "loads without the descriptor": (
        a_configuration(),
        resources(HGMMA=4, LDGSTS=2, UTMASTG=1),
        "no UTMALDG",
    ),
    "store without the descriptor": (
        a_configuration(),
        resources(HGMMA=4, UTMALDG=2),
        "no UTMASTG",
    ),
    "a mask that is waited for": (
        a_configuration(kernel="dgrad", case="mask-sums"),
        resources(**GOOD),
        "waits for its mask",
    ),
    "no arrivals": (
        a_configuration(kernel="narrow_forward", case="parts", operands=""),
        resources(HGMMA=1, LDGSTS=1),
        "counts 0 kinds of arrivals, not 1",
    ),
    "arrivals in order": (
        a_configuration(kernel="narrow_forward", case="parts", operands=""),
        resources(HGMMA=1, LDGSTS=1)._replace(accesses="SBFAIBR"),
        None,
    ),
    "an arrival out of order": (
        a_configuration(kernel="narrow_forward", case="parts", operands=""),
        resources(HGMMA=1, LDGSTS=1)._replace(accesses="SBAIBR"),
        "out of order: store, barrier, count, invalidation, barrier, strong read",
    ),
    "arrivals of programs that share nothing": (
        a_configuration(),
        resources(**GOOD)._replace(accesses="SBFAIBR"),
        "counts 1 kinds of arrivals, not 0",
    ),
    "waiting loads": (a_configuration(operands="pointers"), resources(HGMMA=4), "no LDGSTS"),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_each_gate_finds_a_planted_fault(planted):
    configuration, found, complaint = planted
    broken = gates.broken(configuration, found)
    if complaint is None:
        assert broken == []
    else:
        assert len(broken) == 1
        assert complaint in broken[0]


def test_ptx_in_the_place_of_the_disassembly():
    ptx = """
        cp.async.bulk.tensor.2d.shared::cta.global.mbarrier [%r1], [%rd1], [%r2];
        @%p1 tcgen05.mma.cta_group::1.kind::f16 [ %r3 + 0 ], %rd2, %rd3, %r4, %p2;
        cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd4, {%r5, %r6}], [%r7];
        add.f32 %f1, %f2, %f3;
    """
    assert cubins.ptx_instructions(ptx) == {"UTCMMA": 1, "FADD": 1, "UTMALDG": 1, "UTMASTG": 1}


def test_instructions_are_counted_by_name_without_predicates_and_suffixes():
    disassembly = """
.text.product_kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 STL.64 [R1+0x8], R2 ;
        /*0020*/             @!UP1 UTMALDG.2D [UR8], [UR4] ;
        /*0030*/                   HGMMA.64x128x8.F32.TF32 R24, R104, gdesc[UR32], RZ, !UPT ;
        /*0040*/               @P2 HGMMA.64x128x8.F32.TF32 R24, R108, gdesc[UR8], R24 ;
.L_x_0:
        /*0050*/                   UTCQMMA gdesc[UR4], gdesc[UR6], tmem[UR8], tmem[UR10], idesc[UR11] ;
"""  # noqa: E501 - as the tool prints it
    found = cubins.instructions(disassembly)
    assert found == {"LDC": 1, "STL": 1, "UTMALDG": 1, "HGMMA": 2, "UTCQMMA": 1}
    assert cubins.Resources(0, 0, 0, 0, found).matrix == {"HGMMA": 2, "UTC*MMA": 1}
