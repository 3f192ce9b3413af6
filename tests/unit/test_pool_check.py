"""`check` finds each thing that can be wrong with a pool; planted from C, which can reach all of its parts."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from pagedup.sharing import FramePool
from pagedup.sharing.frame_pool import ABSENT
from tests.processes import CORE, module_flags, sanitizer_flags, succeed

HERE = Path(__file__).parent

# What is said, in the order of each program.
POOL = [
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
    "the number of pages that are paged out is wrong",
    "the number of pages that are paged out is wrong",
    "a page that is paged out has a frame",
    "a page has a mark that there is none of",
    "the number of pages that are paged out is wrong",
    "a search for victims is where no page is",
    "a search for victims is where no page is",
]
LARGE_POOL = [
    "a large page does not lie in one block",
    "a small page was moved to a frame of a large one",
    "the number of a guest's large pages is wrong",
    "the number of a guest's large pages is wrong",
    "a large page does not lie in one block",
    "a range that cannot be a large page is said to be one",
    "a range that cannot be a large page is said to be one",
    "the number of a guest's large pages is wrong",
    "the number of large pages is wrong",
    "a block does not hold as many large pages as counted",
    "a block does not hold as many large pages as counted",
    "a block does not hold as many large pages as counted",
    "a large page shares a frame with a small one unnoticed",
    "a block's flag is neither 0 nor 1, or it has no large page",
    "a block's flag is neither 0 nor 1, or it has no large page",
    "free blocks are not where they are looked for",
    "free blocks are not where they are looked for",
    "free blocks are not where they are looked for",
    "free blocks are not where they are looked for",
]
POLICY = [
    "the policy takes a page for present that is absent, or the other way round",
    "the policy takes a page for present that is absent, or the other way round",
    "a page that was shared is mapped to a frame that is not stable",
    "a zero page is not mapped to the zero frame",
    "the frame of a settled page is not in the index for it",
    "the frame of a settled page is not in the index for it",
    "a settled page holds another thing than when looked at",
    "a changed page is mapped to a stable frame",
    "the policy's counts of pages are wrong",
    "the policy's counts of pages are wrong",
    "the policy's counts of pages are wrong",
    "a page that was shared is mapped to a frame that is not stable",
    "a changed page is mapped to a stable frame",
    "a free frame is in the index",
    "a loose frame has several pages, or is stable",
    "a stable frame holds another thing than when it was shared",
    "a stable frame has more pages than it may",
    "a chain of the index has no end",
    "a frame that is nothing is in the index",
    "a frame is in another chain than looked for",
    "frames of the index are not found",
    "frames of the index are not found",
    "the number of stable frames is wrong",
    "visits are owed, but pages have changed",
    "visits are not counted, and not said to be owed",
    "visits are not counted, and not said to be owed",
]
ROOM = [
    "a frame that has no room is in a heap",
    "a frame that has no room is in a heap",
    "a frame with room has the place of another one",
    "a frame with room has the place of another one",
    "a frame of a chain is below another in a heap",
    "frames of the index are not found",
    "a frame of a chain is below another in a heap",
    "the neighbours of a frame in a heap are others",
    "the neighbours of a frame in a heap are others",
    "the neighbours of a frame in a heap are others",
    "the neighbours of a frame in a heap are others",
    "frames of the index are not found",
    "the neighbours of a frame in a heap are others",
    "a heap of frames has no end",
    "frames with room are not found",
    "frames with room are not found",
    "frames with room are not found",
    "a frame with room is below one with fewer pages",
    "a frame with room is below one that holds another thing",
    "two frames with room that hold the same are in a chain",
    "a frame that is alone has a place in a heap",
    "places in heaps of frames are lost",
    "places in heaps of frames are lost",
]
FLAWS = {"corrupt_pool": POOL, "corrupt_large_pool": LARGE_POOL, "corrupt_policy": POLICY, "corrupt_room": ROOM}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrupt")
    for name in FLAWS:
        flags = [*module_flags("--cflags"), f"-I{CORE}", str(HERE / f"{name}.c"), *module_flags("--libs")]
        succeed(["gcc", "-std=c11", "-O1", "-Wall", "-Werror", "-o", str(folder / name), *sanitizer_flags(), *flags])
    return folder


@pytest.mark.parametrize("name", FLAWS)
def test_every_way_is_tried(programs: Path, name: str) -> None:
    assert int(succeed([str(programs / name)])) == len(FLAWS[name])
    assert succeed([str(programs / name), "-1"]) == "sound\n"


@pytest.mark.parametrize(("name", "way"), [(name, way) for name in FLAWS for way in range(len(FLAWS[name]))])
def test_what_is_broken_is_noticed(programs: Path, name: str, way: int) -> None:
    broken, flaw, *_ = succeed([str(programs / name), str(way)]).strip().split("\t")
    assert flaw == FLAWS[name][way], broken


def test_it_says_where() -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(4)
        guest.write([0, 1], np.ones((2, 64), np.uint8))
        entry = ctypes.c_uint32.from_address(guest.page_table.ctypes.data + 4)
        for wrong, message in [
            (0, "not mapped as often as counted: frame 0$"),
            (7, "a frame that never was in use: guest 0, page 1, frame 7$"),
            (ABSENT, "the number of present pages is wrong: guest 0$"),
        ]:
            entry.value = wrong
            with pytest.raises(RuntimeError, match=f"^the pool is broken: .*{message}"):
                pool.check()
        entry.value = 1
        pool.check()
