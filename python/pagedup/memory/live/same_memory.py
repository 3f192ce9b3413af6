"""Which processes have one memory in common, as a child of vfork() has its parent's (kcmp(2))."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cmp_to_key
from itertools import pairwise

_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "loongarch64": 272}
_KCMP_VM = 1
_EQUAL, _LESS = 0, 1


def same_memory(pids: Sequence[int]) -> tuple[int, int] | None:
    """The positions of two processes with one memory; None if there are none, or the kernel does not tell."""
    number = _KCMP.get(os.uname().machine)
    if number is None or len(pids) < 2:
        return None
    call = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)

    def compare(one: int, other: int) -> int:
        order = call(number, pids[one], pids[other], _KCMP_VM, 0, 0)
        if order not in (_EQUAL, _LESS, 2):  # not permitted, not built into the kernel, ended
            raise PermissionError
        return {_EQUAL: 0, _LESS: -1}.get(order, 1)

    try:
        # The kernel orders memories, so that not every pair need be asked about; of equal ones the order is kept.
        ordered = sorted(range(len(pids)), key=cmp_to_key(compare))
        return next(((one, other) for one, other in pairwise(ordered) if not compare(one, other)), None)
    except PermissionError:
        return None
