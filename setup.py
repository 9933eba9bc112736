"""Builds the CPU extension: C++17 and pybind11, one source of the kernels per instruction set."""

import os
import platform
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup
from setuptools.errors import CompileError

NO_COMPILER = """
twolayer_kernels needs a C++17 compiler to build its CPU kernels, and none worked.
Install one and try again:
  Debian, Ubuntu   apt-get install g++
  Fedora, RHEL     dnf install gcc-c++
  conda            conda install -c conda-forge cxx-compiler
The compiler said: """
OLD_COMPILER = """
twolayer_kernels needs a compiler that has __builtin_shufflevector: GCC 12 or newer, or Clang.
Install one, name it in the environment variable CXX and try again.
The compiler said: """
NO_OPENMP = "no OpenMP here: twolayer_kernels is built with its own threads alone"

# What each probe of the compiler has to take.
PLAIN_PROBE = "#include <vector>\nint main() { return 0; }\n"
VECTORS_PROBE = """
typedef float Vec __attribute__((vector_size(16)));
Vec reversed(Vec v) { return __builtin_shufflevector(v, v, 3, 2, 1, 0); }
"""
OPENMP_PROBE = "#include <omp.h>\nint threads() { return omp_get_max_threads(); }\n"


def openmp_flags(compiles, wanted):
    """The flags that switch OpenMP on, none where it is not ``wanted`` or not there.

    ``compiles(source, flags)`` returns what the compiler complains of, or ``None``. Raises
    ``CompileError`` where the compiler lacks what the kernels need.
    """
    for probe, message in ((PLAIN_PROBE, NO_COMPILER), (VECTORS_PROBE, OLD_COMPILER)):
        complaint = compiles(probe, [])
        if complaint is not None:
            raise CompileError(message + complaint)
    if not wanted:
        return []
    if compiles(OPENMP_PROBE, ["-fopenmp"]) is not None:
        print(NO_OPENMP)
        return []
    return ["-fopenmp"]


X86 = platform.machine().lower() in ("x86_64", "amd64")
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
# GCC's own AVX-512 header trips the warning (GCC bug 105593).
AVX512_FLAGS = [
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-Wno-maybe-uninitialized"),
    *AVX2_FLAGS,
]
ISA_FLAGS = {
    "kernels_amx.cpp": [*AVX512_FLAGS, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    "kernels_avx512_bf16.cpp": [*AVX512_FLAGS, "-mavx512bf16"],
    "kernels_avx512.cpp": AVX512_FLAGS,
    "kernels_avx2.cpp": AVX2_FLAGS,
}

sources = [
    str(path) for path in sorted(Path("csrc").rglob("*.cpp")) if X86 or path.name not in ISA_FLAGS
]


class BuildExt(build_ext):
    """Gives each kernel source its instruction set's flags, and all of them OpenMP's."""

    def build_extensions(self):
        compile_one = self.compiler._compile

        def compile_with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = [*extra_postargs, *ISA_FLAGS.get(Path(src).name, [])]
            compile_one(obj, src, ext, cc_args, flags, pp_opts)

        flags = openmp_flags(self.compiles, os.environ.get("TWOLAYER_OPENMP", "1") != "0")
        sanitizers = os.environ.get("TWOLAYER_SANITIZE")
        if sanitizers:  # less optimized: its reports are to name the line
            flags += [f"-fsanitize={sanitizers}", "-O1", "-g", "-fno-sanitize-recover"]
        for extension in self.extensions:
            extension.extra_compile_args += flags
            extension.extra_link_args += flags
        self.compiler._compile = compile_with_isa
        super().build_extensions()

    def compiles(self, source, flags):
        probe = Path(self.build_temp) / "probe.cpp"
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text(source)
        try:
            self.compiler.compile(
                [str(probe)], self.build_temp, extra_postargs=["-std=c++17", *flags]
            )
        except CompileError as error:
            return str(error)
        return None


# The sources compile side by side, as many as there are cores.
ParallelCompile("TWOLAYER_BUILD_JOBS").install()

setup(
    ext_modules=[
        Pybind11Extension(
            "twolayer_kernels._cpu",
            sources,
            depends=[str(path) for path in sorted(Path("csrc").rglob("*.h"))],
            cxx_std=17,
            extra_compile_args=[
                "-O3",
                "-ffp-contract=fast",  # a * b + c may be one fused operation
                "-fno-math-errno",
                "-Wall",
                "-Wextra",
                "-Wno-psabi",  # vectors never cross the boundary of a source file
            ],
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
