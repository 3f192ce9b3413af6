"""How the tests here build extensions."""

import sys
from pathlib import Path

from tests.processes import ROOT, sanitizer_flags, succeed

HERE = Path(__file__).parent
BUILD = """
import sys
import dedupcore
from Cython.Build import cythonize
from setuptools import Extension, setup

source, flags = sys.argv.pop(1), sys.argv.pop(1).split()
setup(
    name="downstream",
    ext_modules=cythonize(
        [
            Extension(
                "downstream",
                [source],
                include_dirs=[dedupcore.get_include()],
                extra_compile_args=["-O1", "-Wall", *flags],
                extra_link_args=flags,
            )
        ],
        compiler_directives={"language_level": 3},
        build_dir="cython",
    ),
)
"""


def build_extension(source: str, folder: Path) -> None:
    """Compiles a module "downstream" in the folder against the dedupcore that is installed."""
    assert not folder.resolve().is_relative_to(ROOT)  # where its sources would be found, too
    (folder / source).write_bytes((HERE / source).read_bytes())
    command = [sys.executable, "-P", "-c", BUILD, source, " ".join(sanitizer_flags()), "-q", "build_ext", "--inplace"]
    succeed(["env", "-C", str(folder), *command])
