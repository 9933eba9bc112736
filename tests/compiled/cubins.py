"""What a compiled kernel is made of: registers, memory and instructions, read from its cubin."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from typing import Any, NamedTuple

from triton import knobs

from . import orders

# The matrix units by architecture; those of sm_100 and sm_103 have a name for each type.
MATRIX_UNITS = {80: "HMMA", 90: "HGMMA", 100: "UTC*MMA", 103: "UTC*MMA"}

_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)
_RESOURCE = re.compile(r"\b(REG|STACK):(\d+)")


class Resources(NamedTuple):
    """What one program of a kernel needs, and how often its code holds which instruction."""

    registers: int
    stack: int  # bytes
    shared: int  # bytes
    warps: int
    instructions: dict[str, int]
    accesses: str = ""  # as in orders

    def count(self, *names: str) -> int:
        return sum(self.instructions.get(name, 0) for name in names)

    @property
    def matrix(self) -> dict[str, int]:
        """The matrix instructions, those of the fifth generation under one name."""
        found: Counter[str] = Counter()
        for name, count in self.instructions.items():
            if re.fullmatch(r"UTC\w*MMA", name):
                found["UTC*MMA"] += count
            elif name.endswith("MMA"):
                found[name] += count
        return dict(found)


def _output(tool: str, *arguments: str) -> str:
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def instructions(disassembly: str) -> dict[str, int]:
    """How often each instruction is there, without its predicate and its suffixes."""
    return dict(Counter(_INSTRUCTION.findall(disassembly)))


# The disassembler in triton 3.6 knows no sm_103; what the gates ask for has a name in PTX, too.
_WITHOUT_DISASSEMBLER = (103,)
_IN_PTX = {
    "UTCMMA": r"tcgen05\.mma",
    "FFMA": r"fma\.rn\.f32",
    "CCTL": r"prefetch\.global\.L2",
    "FADD": r"add(?:\.rn)?\.f32",
    "LDGSTS": r"cp\.async\.c[ag]",
    "UTMALDG": r"cp\.async\.bulk\.tensor\.\dd\.shared",
    "UTMASTG": r"cp\.async\.bulk\.tensor\.\dd\.global",
}


def ptx_instructions(ptx: str) -> dict[str, int]:
    """How often PTX holds what becomes each of these instructions."""
    found = {name: len(re.findall(pattern, ptx)) for name, pattern in _IN_PTX.items()}
    return {name: count for name, count in found.items() if count}


def read(compiled: Any) -> Resources:
    """What ``compiled``, of triton's ``CompiledKernel``, needs."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = dict(
            _RESOURCE.findall(_output(knobs.nvidia.cuobjdump.path, "-res-usage", file.name))
        )
        metadata = compiled.metadata
        if metadata.target.arch in _WITHOUT_DISASSEMBLER:
            found, accesses = ptx_instructions(compiled.asm["ptx"]), ""
        else:
            # Without its analysis of data flow it takes half the time.
            code = _output(knobs.nvidia.nvdisasm.path, "-ndf", "-c", file.name)
            found, accesses = instructions(code), orders.accesses(code)
    return Resources(
        registers=int(usage["REG"]),
        stack=int(usage["STACK"]),
        shared=metadata.shared,
        warps=metadata.num_warps,
        instructions=found,
        accesses=accesses,
    )
