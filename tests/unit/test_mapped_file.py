"""Files mapped for reading: what they lose reads as zero, and every other bus error stays what it was."""

import errno
import faulthandler
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dedupcore import MappedFile
from pagedup import find_duplicates
from tests.processes import run_python

PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(range(1, 9)) * (PAGE // 8 * 8))
    return path


def opened(path: Path, size: int | None = None) -> MappedFile:
    with path.open("rb") as file:
        return MappedFile(file.fileno(), path.stat().st_size if size is None else size)


def lost(mapped: MappedFile) -> bool:
    return mapped.shrank  # mypy takes a property for a constant


def test_a_mapping_reads_as_the_file(image: Path) -> None:
    mapped = opened(image)
    with memoryview(mapped) as view:
        assert (view.readonly, view.format, view.itemsize, view.ndim) == (True, "B", 1, 1)
        assert bytes(view) == image.read_bytes()
    assert len(mapped) == 8 * PAGE
    assert not mapped.shrank
    mapped.close()


@pytest.mark.parametrize("size", [1, 5, PAGE - 1, PAGE, PAGE + 1])
def test_a_part_of_a_file(image: Path, size: int) -> None:
    assert bytes(memoryview(opened(image, size))) == image.read_bytes()[:size]


def test_pages_that_a_file_lost_read_as_zero(image: Path) -> None:
    before = image.read_bytes()
    mapped = opened(image)
    view = memoryview(mapped)
    os.truncate(image, 3 * PAGE + 100)
    assert bytes(view[: 3 * PAGE + 100]) == before[: 3 * PAGE + 100]
    assert not lost(mapped)  # nothing that is lost was read
    assert view[5 * PAGE] == 0
    assert lost(mapped)
    assert bytes(view) == before[: 3 * PAGE + 100] + bytes(5 * PAGE - 100)
    assert bytes(view[: 3 * PAGE]) == before[: 3 * PAGE]


def test_a_file_that_grows_again_stays_lost_where_it_was_read(image: Path) -> None:
    mapped = opened(image)
    view = memoryview(mapped)
    os.truncate(image, 0)
    assert view[0] == 0
    image.write_bytes(b"\1" * 8 * PAGE)
    assert mapped.shrank
    assert view[0] == 0


def test_other_mappings_of_the_file_and_of_others(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"\7" * PAGE)
    first, second, third = opened(image), opened(image), opened(other)
    os.truncate(image, PAGE)
    assert memoryview(second)[7 * PAGE] == 0
    assert [mapped.shrank for mapped in (first, second, third)] == [False, True, False]
    second.close()
    again = opened(other)  # takes the place of the second
    assert not again.shrank
    assert bytes(memoryview(again)) == b"\7" * PAGE
    assert memoryview(first)[7 * PAGE] == 0
    assert [mapped.shrank for mapped in (first, third, again)] == [True, False, False]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_scan_of_a_file_that_shrinks_meanwhile(tmp_path: Path, threads: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(2 * np.random.default_rng(0).bytes(4 << 20))
    mapped = opened(path)

    def shrink(phase: str, done: int, total: int) -> None:
        if phase == "partition":  # reads no memory
            os.truncate(path, 1 << 20)

    found = find_duplicates(mapped, threads=threads, progress=shrink)
    assert mapped.shrank
    assert found.n_frames == 2048
    assert find_duplicates(mapped, threads=threads).n_zero == 2048 - 256


def test_a_buffer_in_use_keeps_the_mapping(image: Path) -> None:
    mapped = opened(image)
    view = memoryview(mapped)
    array = np.asarray(memoryview(mapped))
    with pytest.raises(BufferError, match="2 buffers"):
        mapped.close()
    del array
    with pytest.raises(BufferError, match="1 buffers"):
        mapped.close()
    assert view[1] == 2
    view.release()
    mapped.close()
    mapped.close()
    with pytest.raises(ValueError, match="closed"):
        memoryview(mapped)


def test_a_view_outlives_the_object(image: Path) -> None:
    view = memoryview(opened(image))
    assert bytes(view) == image.read_bytes()


def test_a_writable_buffer_is_refused(image: Path) -> None:
    with image.open("rb") as file, pytest.raises(TypeError, match="read-write"):
        file.readinto(opened(image))


@pytest.mark.parametrize("size", [0, -1, -(1 << 62)])
def test_a_size_that_cannot_be_mapped(image: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size};"):
        opened(image, size)


def test_what_the_system_refuses(image: Path, tmp_path: Path) -> None:
    def code(fd: int, size: int = PAGE) -> int | None:
        with pytest.raises(OSError) as caught:
            MappedFile(fd, size)
        return caught.value.errno

    assert code(-1) == errno.EBADF
    with image.open("wb") as write_only:
        assert code(write_only.fileno()) == errno.EACCES
    with image.open("rb") as file:
        assert code(file.fileno(), 1 << 62) in (errno.ENOMEM, errno.EOVERFLOW)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert code(folder) == errno.ENODEV
    finally:
        os.close(folder)


# --- bus errors that are not ours --------------------------------------------------------------------------------

# Two files, both mapped, ours and by mmap; both shrink. argv: a folder, and what happens then.
SCENE = """
import faulthandler, mmap, os, signal, sys
folder, what = sys.argv[1:]
if "faulthandler" in what:
    faulthandler.enable()
if "handled" in what:
    import ctypes
    KIND = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = KIND(lambda number: os.write(1, b"handled") and os._exit(7))
    ctypes.CDLL(None).signal(int(signal.SIGBUS), handler)
if "ignored" in what:
    signal.signal(signal.SIGBUS, signal.SIG_IGN)
from dedupcore import MappedFile
def file(name):
    fd = os.open(folder + "/" + name, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 65536)
    return fd
ours, theirs = file("ours"), file("theirs")
above = mmap.mmap(theirs, 65536)  # mostly: the kernel goes downwards
mapped, below = MappedFile(ours, 65536), mmap.mmap(theirs, 65536)
os.ftruncate(ours, 0)
os.ftruncate(theirs, 0)
assert memoryview(mapped)[4096] == 0 and mapped.shrank
os.write(1, b"survived ")
if "kill" in what:
    os.kill(os.getpid(), signal.SIGBUS)
    os.write(1, b"unharmed ")
    third = file("third")
    again = MappedFile(third, 65536)
    os.ftruncate(third, 0)
    assert memoryview(again)[4096] == 0 and again.shrank
elif "closed" in what:  # another mapping takes the very place of ours
    import ctypes
    import numpy as np
    libc = ctypes.CDLL(None)
    libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 4]
    view = np.asarray(memoryview(mapped))
    place = view.ctypes.data
    del view
    mapped.close()
    assert libc.mmap(place, 65536, mmap.PROT_READ, mmap.MAP_SHARED | 0x10, theirs, 0) == place  # MAP_FIXED
    ctypes.string_at(place + 4096, 1)
elif "above" in what:
    above[4096]
else:
    below[4096]
os.write(1, b"went on")
"""


def play(what: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    # A Python of our own: pytest and the sanitizers have handlers of theirs.
    return run_python(SCENE, folder, what, environment={"ASAN_OPTIONS": "detect_leaks=0:handle_sigbus=0"})


@pytest.mark.parametrize("what", ["fault", "fault, above", "fault, closed", "fault, ignored", "kill"])
def test_a_bus_error_elsewhere_ends_the_process_as_ever(tmp_path: Path, what: str) -> None:
    done = play(what, tmp_path)
    assert (done.stdout, done.returncode) == ("survived ", -signal.SIGBUS), done.stderr


@pytest.mark.parametrize("what", ["fault, faulthandler", "kill, faulthandler"])
def test_faulthandler_still_tells(tmp_path: Path, what: str) -> None:
    done = play(what, tmp_path)
    assert (done.stdout, done.returncode) == ("survived ", -signal.SIGBUS)
    assert "Fatal Python error: Bus error" in done.stderr
    assert done.stderr.count("Fatal Python error") == 1


def test_a_sent_signal_that_was_ignored_still_is(tmp_path: Path) -> None:
    done = play("kill, ignored", tmp_path)
    assert (done.stdout, done.returncode) == ("survived unharmed went on", 0), done.stderr


@pytest.mark.parametrize("what", ["fault, handled", "kill, handled"])
def test_a_handler_from_before_is_called(tmp_path: Path, what: str) -> None:
    done = play(what, tmp_path)
    assert (done.stdout, done.returncode) == ("survived handled", 7), done.stderr


def test_faulthandler_is_on_in_these_tests() -> None:
    """So that all the tests above run with a handler that was there before."""
    assert faulthandler.is_enabled()


def test_more_faults_than_a_process_may_have_mappings(tmp_path: Path) -> None:
    """Each scattered fault mended by itself would end at vm.max_map_count, and with it the process."""
    path = tmp_path / "image"
    n_pages = 2 * int(Path("/proc/sys/vm/max_map_count").read_text()) + 100
    with path.open("wb") as file:
        file.truncate(n_pages * 4096)
    code = f"""
import os, sys, dedupcore
fd = os.open(sys.argv[1], os.O_RDWR)
mapped = dedupcore.MappedFile(fd, {n_pages * 4096})
os.ftruncate(fd, 0)
view = memoryview(mapped)
assert not any(view[page * 4096] for page in reversed(range(0, {n_pages}, 2)))
assert mapped.shrank
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
