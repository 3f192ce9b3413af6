"""Simulated guests are the same to the last bit on machines of another kind: without x86's vectors, and on aarch64."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dedupcore
from tests.processes import CORE, succeed

# Prints, in binary, the places of a fragmented guest's pages, their names, and the bytes of these in every texture.
PROGRAM = """
#include <dedupcore.h>
#include <stdio.h>

enum { PAGES = 3000, SIZE = 512 };

int main(void)
{
    static uint64_t names[PAGES], common[PAGES];
    static uint16_t numbers[PAGES];
    static uint8_t regions[PAGES], kinds[PAGES];
    static uint32_t places[PAGES];
    static unsigned char frames[PAGES * SIZE];
    const uint64_t counts[] = {2000, 1000}, values[] = {UINT64_C(1) << 50};
    const uint8_t orders[] = {9, 0};
    const int64_t fixed[] = {-1, -1};
    const uint32_t chances[] = {UINT32_C(1) << 30};
    const dedupcore_template pages = {PAGES, common, numbers, kinds, 0};
    const dedupcore_variation variation = {1, values, chances, UINT64_C(1) << 63, 11};
    size_t wrong;

    for (size_t i = 0; i < PAGES; i++)
        common[i] = 100 * i;
    if (dedupcore_place(7, PAGES, DEDUPCORE_ALWAYS / 4 * 3, counts, orders, fixed, 2, places) ||
        dedupcore_name_pages(&pages, &variation, places, names, regions, PAGES, &wrong))
        return 1;
    fwrite(places, sizeof places, 1, stdout);
    fwrite(names, sizeof names, 1, stdout);
    for (unsigned texture = 0; texture <= DEDUPCORE_MIXED; texture++) {
        if (dedupcore_materialize(names, PAGES, SIZE, texture, frames))
            return 1;
        fwrite(frames, sizeof frames, 1, stdout);
    }
    return 0;
}
"""


def by_the_module() -> bytes:
    """The same by the installed module."""
    n, size = 3000, 512
    places, names, regions = np.zeros(n, np.uint32), np.zeros(n, np.uint64), np.zeros(n, np.uint8)
    numbers, common = np.zeros(n, np.uint16), 100 * np.arange(n, dtype=np.uint64)
    dedupcore.place(7, n, 0.75, np.array([2000, 1000]), b"\x09\x00", np.array([-1, -1]), places)
    values, chances = np.array([1 << 50], np.uint64), np.array([1 << 30], np.uint32)
    dedupcore.name_pages(places, common, numbers, np.zeros(n, np.uint8), values, chances, 1 << 63, 11, names, regions)
    frames = np.zeros((5, n * size), np.uint8)
    for texture, out in enumerate(frames):
        dedupcore.materialize(names, out, size, texture)
    return places.tobytes() + names.tobytes() + frames.tobytes()


@pytest.mark.parametrize(
    ("compiler", "flags", "runner"),
    [
        pytest.param("gcc", ["-U__SSE2__"], [], id="no vectors"),
        pytest.param("clang", [], [], id="clang"),
        pytest.param("aarch64-linux-gnu-gcc", ["-static"], ["qemu-aarch64"], id="aarch64"),
    ],
)
def test_same_guests(compiler: str, flags: list[str], runner: list[str], tmp_path: Path) -> None:
    for tool in (compiler, *runner):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    (tmp_path / "guest.c").write_text(PROGRAM)
    parts = [str(CORE / f"{part}.c") for part in ("placement", "naming", "materialize")]
    program, includes = str(tmp_path / "guest"), [f"-I{CORE}", f"-I{CORE}/include"]
    warnings = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    succeed([compiler, *warnings, *flags, *includes, "-o", program, str(tmp_path / "guest.c"), *parts])
    printed = subprocess.run([*runner, program], stdout=subprocess.PIPE, check=True, timeout=120).stdout
    assert printed == by_the_module()
