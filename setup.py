"""Builds the CPU extension: C++17 and pybind11, one source of the kernels per instruction set."""

import platform
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup
from setuptools.errors import CompileError

NO_COMPILER = """
twolayer_kernels needs a C++17 compiler with OpenMP to build its CPU kernels, and none worked.
Install one and try again:
  Debian, Ubuntu   apt-get install g++
  Fedora, RHEL     dnf install gcc-c++
  conda            conda install -c conda-forge cxx-compiler
The compiler said: """

X86 = platform.machine().lower() in ("x86_64", "amd64")
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
AVX512_FLAGS = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *AVX2_FLAGS]
ISA_FLAGS = {
    "kernels_avx512_bf16.cpp": [*AVX512_FLAGS, "-mavx512bf16", "-Wno-maybe-uninitialized"],
    # GCC's own AVX-512 header trips this warning (GCC bug 105593).
    "kernels_avx512.cpp": [*AVX512_FLAGS, "-Wno-maybe-uninitialized"],
    "kernels_avx2.cpp": AVX2_FLAGS,
}
X86_ONLY = {"kernels_avx512_bf16.cpp", "kernels_avx512.cpp", "kernels_avx2.cpp"}

sources = [
    str(path) for path in sorted(Path("csrc").rglob("*.cpp")) if X86 or path.name not in X86_ONLY
]


class BuildExt(build_ext):
    """Gives each kernel source its instruction set's flags, and names what is missing."""

    def build_extensions(self):
        compile_one = self.compiler._compile

        def compile_with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = [*extra_postargs, *ISA_FLAGS.get(Path(src).name, [])]
            compile_one(obj, src, ext, cc_args, flags, pp_opts)

        self.check_compiler()
        self.compiler._compile = compile_with_isa
        super().build_extensions()

    def check_compiler(self):
        probe = Path(self.build_temp) / "probe.cpp"
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("#include <omp.h>\n#include <vector>\nint main() { return 0; }\n")
        try:
            self.compiler.compile(
                [str(probe)], self.build_temp, extra_postargs=["-std=c++17", "-fopenmp"]
            )
        except CompileError as error:
            raise CompileError(NO_COMPILER + str(error)) from error


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
                "-fopenmp",
                "-ffp-contract=fast",  # a * b + c may be one fused operation
                "-fno-math-errno",
                "-Wall",
                "-Wextra",
                "-Wno-psabi",  # vectors never cross the boundary of a source file
            ],
            extra_link_args=["-fopenmp"],
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
