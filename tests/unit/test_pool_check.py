"""`check` finds each thing that can be wrong with a pool; planted from C, which can reach all of its parts."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from pagedup.sharing import FramePool
from pagedup.sharing.frame_pool import ABSENT
from tests.processes import CORE, module_flags, sanitizer_flags, succeed

HERE = Path(__file__).parent

# What is said, in the order of corrupt_pool.c.
FLAWS = [
    "a page is mapped to a frame that never was in use",
    "a frame is not mapped as often as counted",
    "a page is mapped to a frame of another domain",
    "the number of present pages is wrong",
    "a page is mapped to a free frame",
    "the number of present pages is wrong",
    "a mark of a batch was left behind",
    "a page is mapped to a frame of another domain",
    "a frame is not mapped as often as counted",
    "a frame is not mapped as often as counted",
    "a page is mapped to a frame of another domain",
    "a free frame is not zero",
    "the zero frame of a domain is not zero",
    "the zero frame of a domain is not zero",
    "the zero frame of a domain is none of its frames",
    "the zero frame of a domain is none of its frames",
    "the number of present pages is wrong",
    "the number of shared frames is wrong",
    "the number of pages is wrong",
    "the number of frames in use is wrong",
    "frames were freed, but not given back",
    "a frame is in use, but no page is mapped to it",
    "a page is mapped to a free frame",
    "free frames are not where they are looked for",
    "free frames are not where they are looked for",
    "free frames are not where they are looked for",
    "free frames are not where they are looked for",
    "a free frame would be overlooked",
]


@pytest.fixture(scope="module")
def corrupt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("corrupt") / "corrupt_pool"
    flags = [*module_flags("--cflags"), f"-I{CORE}", str(HERE / "corrupt_pool.c"), *module_flags("--libs")]
    succeed(["gcc", "-std=c11", "-O1", "-Wall", "-Werror", "-o", str(program), *sanitizer_flags(), *flags])
    return program


def test_every_way_is_tried(corrupt: Path) -> None:
    assert int(succeed([str(corrupt)])) == len(FLAWS)
    assert succeed([str(corrupt), "-1"]) == "sound\n"


@pytest.mark.parametrize("way", range(len(FLAWS)))
def test_what_is_broken_is_noticed(corrupt: Path, way: int) -> None:
    broken, flaw, *_ = succeed([str(corrupt), str(way)]).strip().split("\t")
    assert flaw == FLAWS[way], broken


def test_it_says_where() -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(4)
        guest.write([0, 1], np.ones((2, 64), np.uint8))
        entry = ctypes.c_uint32.from_address(guest.page_table.ctypes.data + 4)
        for wrong, message in [
            (0, "not mapped as often as counted: frame 0$"),
            (7, "a frame that never was in use: guest 0, page 1, frame 7$"),
            (ABSENT, "the number of present pages is wrong$"),
        ]:
            entry.value = wrong
            with pytest.raises(RuntimeError, match=f"^the pool is broken: .*{message}"):
                pool.check()
        entry.value = 1
        pool.check()
