"""Fuzzes what loads binaries as images: `make fuzz`. An input is a file.

Needs atheris, which is not among the development tools since it has no wheels for every Python.
"""

import contextlib
import os
import sys

import atheris

with atheris.instrument_imports(include=["pagedup.guests"]):
    from tests.fuzz.image_property import check_image


def main() -> None:
    atheris.Setup(sys.argv, check_one)
    atheris.Fuzz()


def check_one(data: bytes) -> None:
    check_image(data, PATH)


if __name__ == "__main__":
    # A file that is only in memory, and gone with the process.
    FILE = os.memfd_create("fuzzed")
    PATH = f"/proc/self/fd/{FILE}"
    with contextlib.suppress(KeyboardInterrupt):
        main()
