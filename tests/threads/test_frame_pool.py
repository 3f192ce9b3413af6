"""A pool used by several threads: reads side by side, and other calls one after the other."""

import shutil
from pathlib import Path

import pytest

from tests.processes import CORE, run, run_python, succeed

HERE = Path(__file__).parent

SIDE_BY_SIDE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from pagedup.sharing import FramePool

writers, readers, frame_size = 2, 2, int(sys.argv[1])
sys.setswitchinterval(1e-5)
n = 4000
pool = FramePool(10 * n, frame_size)
guests = [pool.add_guest(n) for _ in range(writers)]
stop = threading.Event()

def frames(numbers):
    data = np.zeros((len(numbers), frame_size // 8), np.uint64)
    data[:, -1] = numbers
    return data.view(np.uint8).reshape(len(numbers), frame_size)

def write(which):
    # Each writer has a guest of its own, and knows what it holds.
    dice, guest, model = np.random.default_rng(which), guests[which], np.zeros(n, np.uint64)
    out = np.zeros((n, frame_size), np.uint8)
    for turn in range(60):
        gpns = dice.permutation(n)[: n // 3]
        if turn % 5 == 4:
            guest.release(gpns)
            model[gpns] = 0
        else:
            model[gpns] = dice.integers(0, 50, len(gpns))
            guest.write(gpns, frames(model[gpns]))
        if turn % 7 == 6:
            pool.share()
        guest.read(np.arange(n), out)
        assert (out == frames(model)).all()

def read(which):
    out, gpns = np.zeros((n, frame_size), np.uint8), np.arange(n)
    while not stop.is_set():
        for guest in guests:
            guest.read(gpns, out)
            assert (out.view(np.uint64)[:, -1] < 50).all()
        pool.check()
        assert pool.counts().in_use <= 10 * n
        assert pool.memory.shape == (10 * n, frame_size)

with ThreadPoolExecutor(writers + readers) as threads:
    reading = [threads.submit(read, which) for which in range(readers)]
    writing = [threads.submit(write, which) for which in range(writers)]
    try:
        for future in writing:
            future.result()
    finally:
        stop.set()
    for future in reading:
        future.result()
pool.check()
print("fine")
"""


@pytest.mark.parametrize("frame_size", [8, 64, 4096])
def test_reads_and_writes_of_many_threads(frame_size: int) -> None:
    done = run_python(SIDE_BY_SIDE, frame_size, timeout=120)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_closed_while_others_use_it() -> None:
    """Each call is whole or refused; views keep the memory."""
    done = run_python(
        """
        import threading
        import numpy as np
        from pagedup.sharing import FramePool

        for _ in range(40):
            pool = FramePool(1000, 4096)
            guest = pool.add_guest(1000)
            refused = []
            def work():
                data = np.ones((1000, 4096), np.uint8)
                try:
                    while True:
                        guest.write(np.arange(1000), data)
                        view = pool.memory
                        guest.release(np.arange(1000))
                        assert view.max() <= 1
                except ValueError as error:
                    refused.append(str(error))
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            pool.close()
            for thread in threads:
                thread.join()
            assert refused == ["the pool is closed"] * 3, refused
        print("fine")
        """,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_a_writer_does_not_wait_for_ever() -> None:
    """Readers who always overlap keep nobody out."""
    done = run_python(
        """
        import threading
        import numpy as np
        from pagedup.sharing import FramePool
        n = 1 << 16
        pool = FramePool(n, 64)
        guest = pool.add_guest(n)
        gpns, data = np.arange(n, dtype=np.uint32), np.ones((n, 64), np.uint8)
        guest.write(gpns, data)
        done = threading.Event()
        def read():
            out = np.zeros((n, 64), np.uint8)
            while not done.is_set():
                guest.read(gpns, out)
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            guest.write(gpns[:1], data[:1])
        done.set()
        for thread in threads:
            thread.join()
        print("fine")
        """,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_guests_added_side_by_side() -> None:
    """Each new domain has a number of its own, whoever adds it: none of these pages are shared."""
    done = run_python(
        """
        import sys, threading
        import numpy as np
        from pagedup.sharing import FramePool
        sys.setswitchinterval(1e-6)
        pool = FramePool(4000, 8)
        def add(which):
            for turn in range(300):
                pool.add_guest(1, domain=(which, turn)).write([0], np.array([7], np.uint64))
        threads = [threading.Thread(target=add, args=(which,)) for which in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.share()
        pool.check()
        print(pool.counts().in_use, len(pool.guests))
        """,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("1200 1200\n", 0), done.stderr


def test_a_child_has_a_pool_of_its_own() -> None:
    done = run_python(
        """
        import os
        import numpy as np
        from pagedup.sharing import FramePool
        pool = FramePool(10, 64)
        guest = pool.add_guest(10)
        ones, out = np.ones((1, 64), np.uint8), np.zeros((1, 64), np.uint8)
        guest.write([0], ones)
        child = os.fork()
        if child == 0:
            guest.write([0], 2 * ones)
            guest.write([1], 3 * ones)
            pool.check()
            os._exit(pool.counts().in_use)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        guest.read([0], out)
        assert out[0, 0] == 1 and pool.counts().in_use == 1
        pool.check()
        print("fine")
        """
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_what_the_header_allows_is_no_race(compiler: str, tmp_path: Path) -> None:
    """ThreadSanitizer: nothing with side-by-side reads; and it does see a read beside a write."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    program = tmp_path / "readers"
    sources = sorted(str(source) for source in CORE.glob("*.c"))
    flags = ["-std=c11", "-O1", "-g", "-fsanitize=thread", f"-I{CORE}/include", f"-I{CORE}", "-pthread"]
    if run([compiler, *flags, "-o", str(program), str(HERE / "readers.c"), *sources]).returncode:
        pytest.skip(f"{compiler} has no ThreadSanitizer")
    # Its memory layout does not go with random addresses as wide as some kernels make them.
    command = ["setarch", "-R", str(program)]
    if run([*command, "probe"]).returncode:
        pytest.skip("ThreadSanitizer does not run here")
    succeed(command)
    succeed([*command, "policy"])
    for _ in range(20):  # seeing one that is there takes some luck
        raced = run([*command, "writes"])
        if "data race" in raced.stderr:
            assert raced.returncode
            return
    pytest.fail("no race was seen")
