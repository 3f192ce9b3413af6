"""On which node pages lie: asked of the kernel for this very process."""

import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pagedup.memory.live import numa
from pagedup.memory.live.numa import memory_nodes, page_nodes
from tests.processes import run_python

PAGE = mmap.PAGESIZE


def test_present_pages_lie_on_a_node_and_absent_ones_on_none() -> None:
    with mmap.mmap(-1, 8 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in (0, 3, 7):
            memory[page * PAGE] = 1
        view = np.frombuffer(memory, np.uint8)
        start = view.ctypes.data
        del view
        found = page_nodes(os.getpid(), np.arange(8, dtype=np.uint64) * np.uint64(PAGE) + np.uint64(start))
    assert found.dtype == np.int16
    assert set(found[[0, 3, 7]].tolist()) <= set(memory_nodes())
    assert (found[[1, 2, 4, 5, 6]] < 0).all()


def test_more_pages_than_one_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numa, "_PAGES_A_CALL", 4)
    here = np.ones(PAGE, np.uint8)
    addresses = np.full(9, here.ctypes.data, np.uint64)
    addresses[[3, 4, 8]] = 0  # never mapped
    found = page_nodes(os.getpid(), addresses)
    assert (found < 0).tolist() == [False] * 3 + [True] * 2 + [False] * 3 + [True]
    assert len(page_nodes(os.getpid(), addresses[:0])) == 0


@pytest.mark.parametrize(("text", "nodes"), [("0\n", [0]), ("0-1,3\n", [0, 1, 3]), ("\n", [])])
def test_nodes_with_memory(text: str, nodes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "has_memory").write_text(text)
    monkeypatch.setattr(numa, "_NODES", tmp_path / "has_memory")
    assert memory_nodes() == nodes
    monkeypatch.setattr(numa, "_NODES", tmp_path / "gone")
    assert memory_nodes() == [0]


def test_a_process_that_is_not_there() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    with pytest.raises(OSError, match=rf"pid:{ended.pid}: the memory nodes of its pages cannot be asked for: No such"):
        page_nodes(ended.pid, np.zeros(1, np.uint64))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_process_of_somebody_else() -> None:
    done = run_python(
        """
        import os, sys
        import numpy as np
        from pagedup.memory.live.numa import page_nodes
        os.setgid(65534); os.setuid(65534)
        try:
            page_nodes(int(sys.argv[1]), np.zeros(1, np.uint64))
        except OSError as error:
            print(error)
        """,
        os.getpid(),
    )
    assert (
        f"pid:{os.getpid()}: the memory nodes of its pages cannot be asked for: Operation not permitted" in done.stdout
    )


def test_an_architecture_without_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="are not known on riscv64"):
        page_nodes(os.getpid(), np.zeros(1, np.uint64))
