"""On which memory node the pages of a process lie, as the kernel tells (move_pages(2), which moves nothing here)."""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NODES = Path("/sys/devices/system/node/has_memory")
_MOVE_PAGES = {"x86_64": 279, "aarch64": 239}  # the number of the system call; the C library has no name for it
_PAGES_A_CALL = 1 << 16


def memory_nodes() -> list[int]:
    """The numbers of the nodes that have memory; [0] on a kernel without nodes. Nobody need ask where pages lie if
    there is only one.
    """
    try:
        text = _NODES.read_text()
    except FileNotFoundError:
        return [0]
    nodes: list[int] = []
    for part in filter(None, text.strip().split(",")):  # such as 0-1,3
        first, _, last = part.partition("-")
        nodes += range(int(first), int(last or first) + 1)
    return nodes


def page_nodes(pid: int, addresses: NDArray[np.uint64]) -> NDArray[np.int16]:
    """The node of the page at each of these addresses of a process: int16, a negative error number where none lies.

    Touches no page. Raises OSError where the kernel does not tell: no such process, or no permission.
    """
    import ctypes  # only here: hardly any machine has several nodes

    number = _MOVE_PAGES.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"pid:{pid}: the memory nodes of its pages are not known on {platform.machine()}")
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    nodes = np.empty(len(addresses), np.int16)
    status = np.empty(_PAGES_A_CALL, np.int32)
    for at in range(0, len(addresses), _PAGES_A_CALL):
        part = np.ascontiguousarray(addresses[at : at + _PAGES_A_CALL], np.uint64)
        done = call(
            ctypes.c_long(number),
            ctypes.c_long(pid),
            ctypes.c_ulong(len(part)),
            ctypes.c_void_p(part.ctypes.data),
            None,  # where to: nowhere, only tell
            ctypes.c_void_p(status.ctypes.data),
            ctypes.c_long(0),
        )
        if done < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"pid:{pid}: the memory nodes of its pages cannot be asked for: {os.strerror(error)}")
        nodes[at : at + len(part)] = status[: len(part)]
    return nodes
