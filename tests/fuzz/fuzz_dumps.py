"""Fuzzes what opens memory images: `make fuzz`. An input is the size of a frame, as a power of two, and a file.

Needs atheris, which is not among the development tools since it has no wheels for every Python.
"""

import contextlib
import os
import sys

import atheris

with atheris.instrument_imports(include=["pagedup.memory"]):
    from tests.fuzz.property import check_input


def main() -> None:
    atheris.Setup(sys.argv, check_one)
    atheris.Fuzz()


def check_one(data: bytes) -> None:
    check_input(data, PATH)


if __name__ == "__main__":
    # A file that is only in memory, and gone with the process.
    FILE = os.memfd_create("fuzzed")
    PATH = f"/proc/self/fd/{FILE}"
    with contextlib.suppress(KeyboardInterrupt):
        main()
