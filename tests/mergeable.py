"""Guests that the kernel's KSM may merge: ranges of memory in processes that do nothing else."""

import mmap
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Self

PAGE = mmap.PAGESIZE
Change = tuple[int, int, int | None]  # guest, its page, content; None: released

# It reads a place, a length, and what to write there: nothing to release it. A place below zero is answered.
PROCESS = """
import mmap, struct, sys
size, *ranges = map(int, sys.argv[1:])
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for start, length in zip(ranges[::2], ranges[1::2]):
    memory.madvise(mmap.MADV_MERGEABLE, start, length)
changes, answers = sys.stdin.buffer, sys.stdout.buffer
while header := changes.read(16):
    place, length = struct.unpack("=qq", header)
    if place < 0:
        answers.write(b".")
        answers.flush()
    elif length:
        memory[place : place + length] = changes.read(length)
    else:
        memory.madvise(mmap.MADV_DONTNEED, place, mmap.PAGESIZE)
"""


@cache
def page_of(content: int) -> bytes:
    """Different bytes for different contents, in no order; zero is zero."""
    return random.Random(content).randbytes(PAGE) if content else bytes(PAGE)


class MergeableGuests:
    """Guests of so many pages, by process; KSM scans them in this order."""

    def __init__(self, processes: Sequence[Sequence[int]]) -> None:
        self.sizes = [size for sizes in processes for size in sizes]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._at: list[tuple[int, int]] = []  # the process of each guest, and its place there
        for sizes in processes:
            ranges, end = [], 0
            for size in sizes:
                self._at.append((len(self._processes), end))
                ranges += [end, size * PAGE]
                end += (size + 1) * PAGE  # a page in between, or it would be one range
            command = [sys.executable, "-I", "-S", "-c", PROCESS, *map(str, [end, *ranges])]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            self._wait(len(self._processes) - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with process:
                process.kill()

    def change(self, changes: Sequence[Change]) -> None:
        """Do all of these, and wait until they are done."""
        for guest, gpn, content in changes:
            process, start = self._at[guest]
            data = b"" if content is None else page_of(content)
            self._send(process, struct.pack("=qq", start + gpn * PAGE, len(data)) + data)
        for process in range(len(self._processes)):
            self._wait(process)

    def items(self) -> int:
        """How many of their pages KSM knows, merged or not."""
        stats = [Path(f"/proc/{process.pid}/ksm_stat").read_text().split() for process in self._processes]
        return sum(int(stat[stat.index("ksm_rmap_items") + 1]) for stat in stats)

    def _wait(self, process: int) -> None:
        self._send(process, struct.pack("=qq", -1, 0))
        stdin, stdout = self._processes[process].stdin, self._processes[process].stdout
        assert stdin is not None and stdout is not None
        stdin.flush()
        assert stdout.read(1) == b"."

    def _send(self, process: int, data: bytes) -> None:
        stdin = self._processes[process].stdin
        assert stdin is not None
        stdin.write(data)
