"""Builds the engine: one extension module, and beside it the static library that C programs link.

Switches, by environment (each is off when unset, empty or 0):
    DEDUPCORE_SANITIZE=1   AddressSanitizer and UBSan; an undefined behaviour ends the process
    DEDUPCORE_DEBUG=1      no optimization, assertions on
    DEDUPCORE_COVERAGE=1   gcov counters; a folder instead of 1 is where the objects and counters are kept
"""

import os
import shutil
import sys
from glob import glob
from pathlib import Path
from typing import cast

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

if sys.platform != "linux" or sys.byteorder != "little" or sys.maxsize < 2**63 - 1:
    sys.exit(
        f"pagedup runs on 64-bit little-endian Linux only, not on {sys.platform}, "
        f"{sys.maxsize.bit_length() + 1}-bit, {sys.byteorder}-endian"
    )

STATIC_LIBRARY = "libdedupcore.a"


def switch(name: str) -> str:
    """The value of a build switch; empty when it is off."""
    value = os.environ.get(f"DEDUPCORE_{name}", "")
    return "" if value == "0" else value


def flags() -> tuple[list[str], list[str]]:
    """Compiler flags and linker flags for all C; the last one wins over the interpreter's own."""
    compiling, linking = ["-fvisibility=hidden"], []
    if switch("SANITIZE"):
        sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        compiling += [*sanitizers, "-fno-omit-frame-pointer", "-g"]
        linking += sanitizers
    if switch("COVERAGE"):
        compiling += ["--coverage", "-g"]
        linking += ["--coverage"]
    if switch("DEBUG"):
        compiling += ["-O0", "-g", "-UNDEBUG"]
    elif switch("SANITIZE") or switch("COVERAGE"):
        compiling += ["-O1", "-UNDEBUG"]
    else:
        compiling += ["-O3", "-DNDEBUG"]
    return compiling, linking


COMPILING, LINKING = flags()
# For our own C only: Python's headers and Cython's output are not held to this. The interpreter's -fwrapv
# would hide signed overflow from UBSan.
CORE = ["-std=c11", "-Wall", "-Wextra", "-fno-wrapv"]


class BuildEngine(build_ext):
    """Compiles the C core once, for the extension module and for the static library."""

    def initialize_options(self) -> None:
        """Keep Cython's output out of the source tree."""
        super().initialize_options()
        self.cython_c_in_temp = True

    def finalize_options(self) -> None:
        """Keep the objects of a coverage build where the counters will be looked for."""
        super().finalize_options()
        if os.path.isabs(switch("COVERAGE")):
            self.build_temp = switch("COVERAGE")

    def build_extension(self, ext: Extension) -> None:
        """Archive the objects of the C core, then link them with the binding."""
        core = [str(source) for source in ext.sources if str(source).endswith(".c")]
        objects = self.compiler.compile(
            core,
            output_dir=self.build_temp,
            include_dirs=ext.include_dirs,
            extra_postargs=[*COMPILING, *CORE],
            depends=ext.depends,
        )
        archive = Path(self.static_library())
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.unlink(missing_ok=True)
        self.compiler.create_static_lib(objects, "dedupcore", output_dir=str(archive.parent))
        ext.sources = [source for source in ext.sources if str(source) not in core]
        ext.extra_objects = [*ext.extra_objects, *objects]
        super().build_extension(ext)

    def static_library(self) -> str:
        """Where the build leaves the static library: in the package, beside the extension module."""
        return os.path.join(self.build_lib, "dedupcore", STATIC_LIBRARY)

    def static_library_in_place(self) -> str:
        """Where an editable install keeps it."""
        command = cast(build_py, self.get_finalized_command("build_py"))
        return os.path.join(command.get_package_dir("dedupcore"), STATIC_LIBRARY)

    def copy_extensions_to_source(self) -> None:
        """For editable installs."""
        super().copy_extensions_to_source()
        shutil.copyfile(self.static_library(), self.static_library_in_place())

    def get_outputs(self) -> list[str]:
        """Every file that this command makes."""
        return sorted({*super().get_outputs(), self.static_library()})

    def get_output_mapping(self) -> dict[str, str]:
        """What it makes, and where an editable install finds it in the source tree."""
        return {**super().get_output_mapping(), self.static_library(): self.static_library_in_place()}


setup(
    package_dir={"": "python", "dedupcore": "src/dedupcore"},
    packages=["dedupcore", *find_packages("python")],
    include_package_data=False,
    package_data={
        "dedupcore": ["py.typed", "*.pyi", "*.pxd", "include/*.h"],
        "pagedup": ["py.typed"],
        "pagedup.guests.presets": ["*.toml"],
        "pagedup.host.scenarios": ["*.toml"],
        "pagedup.report": ["templates/*"],
    },
    ext_modules=[
        Extension(
            "dedupcore._dedupcore",
            sources=["src/dedupcore/_dedupcore.pyx", *sorted(glob("src/dedupcore/*.c"))],
            depends=sorted(glob("src/dedupcore/**/*.h", recursive=True) + glob("src/dedupcore/*.pxd")),
            include_dirs=["src/dedupcore/include", "src/dedupcore"],
            extra_compile_args=COMPILING,
            extra_link_args=LINKING,
        )
    ],
    cmdclass={"build_ext": BuildEngine},
)
