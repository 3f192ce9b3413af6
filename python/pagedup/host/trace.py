"""Recorded accesses: (time, guest, page, write), from a file that may be larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RECORD = np.dtype([("time", "<f8"), ("guest", "<u4"), ("gpn", "<u4"), ("write", "?")])
"""One access. time: seconds of simulated time. guest: its number, as the host starts them. gpn: page of 4096 bytes."""

_AT_ONCE = 1 << 18  # records that are read together, some 4 MiB


class Trace:
    """The accesses of a file that `save_trace` wrote, or NumPy: an array of RECORD, one-dimensional (.npy).

    The whole file is checked when it is opened, and read in parts from then on; nobody may write to it meanwhile.

    Args:
        path: of the file. pages_of_guests: how many pages each guest has.

    Raises OSError if it cannot be read, and ValueError, which names the file, the record and the field, if it is no
    trace, times do not ascend, are negative or not finite, or there is no such guest or page.
    """

    def __init__(self, path: str, pages_of_guests: Sequence[int]) -> None:
        self._path = path
        self._records = _open(path)
        self._next = 0
        self._part = self._records[:0]
        self._times = np.empty(0)
        pages = np.asarray(pages_of_guests, np.uint64)
        latest = 0.0
        for first in range(0, len(self._records), _AT_ONCE):
            latest = self._check(first, pages, latest)

    def __len__(self) -> int:
        """How many accesses there are."""
        return len(self._records)

    def take(self, until: float) -> dict[int, tuple[NDArray[np.uint32], NDArray[np.bool_]]]:
        """The accesses before that time that were not taken yet: by guest its pages, in order, and which are writes."""
        parts = []
        while True:
            n = int(np.searchsorted(self._times, until, side="left"))
            parts.append(self._part[:n])
            self._part, self._times = self._part[n:], self._times[n:]
            if len(self._part) or self._next >= len(self._records):
                break
            self._part = np.array(self._records[self._next : self._next + _AT_ONCE])
            self._times = np.ascontiguousarray(self._part["time"])
            self._next += len(self._part)
        records = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if not len(records):
            return {}
        records = records[np.argsort(records["guest"], kind="stable")]
        guests, begins = np.unique(records["guest"], return_index=True)
        own = np.split(records, begins[1:])
        return {
            int(guest): (np.ascontiguousarray(each["gpn"]), np.ascontiguousarray(each["write"]))
            for guest, each in zip(guests, own, strict=True)
        }

    def _check(self, first: int, pages: NDArray[np.uint64], latest: float) -> float:
        """Check one part; returns its last time."""
        part = np.array(self._records[first : first + _AT_ONCE])
        times = np.concatenate(([latest], part["time"]))
        guests, gpns, writes = part["guest"], part["gpn"], part["write"].view(np.uint8)
        self._refuse(~np.isfinite(times[1:]), first, "time", times[1:], "must be finite")
        before = "before that of the record before" if first or times[1] >= 0 else "before 0"
        self._refuse(times[1:] < times[:-1], first, "time", times[1:], f"is {before}")
        self._refuse(guests >= len(pages), first, "guest", guests, f"is too many; there are {len(pages):,}, from 0 on")
        beyond = gpns >= pages[guests]
        wrong = int(np.argmax(beyond))
        if beyond.any():
            guest = int(guests[wrong])
            self._refuse(beyond, first, "gpn", gpns, f"is not in guest {guest}, which has {int(pages[guest]):,} pages")
        self._refuse(writes > 1, first, "write", writes, "must be 0 or 1")
        return float(times[-1])

    def _refuse(self, wrong: NDArray[np.bool_], first: int, field: str, values: NDArray[np.generic], why: str) -> None:
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(f"{self._path}: record {first + at:,}: {field}: {values[at]} {why}")


def save_trace(path: str, time: ArrayLike, guest: ArrayLike, gpn: ArrayLike, write: ArrayLike) -> None:
    """Write accesses to a file, which should end in .npy. What stood there is replaced.

    Arrays (n,) of one length; times in seconds, ascending. Raises ValueError for numbers that are not from 0 to
    2^32 - 1, times that do not ascend, and arrays that do not fit each other; OSError.
    """
    given = {"time": np.asarray(time, np.float64), "guest": np.asarray(guest), "gpn": np.asarray(gpn)}
    given["write"] = np.asarray(write, np.bool_)
    n = given["time"].size
    for field, array in given.items():
        if array.shape != (n,):
            raise ValueError(f"{field} has the shape {array.shape}; it must be ({n},), as time is")
        if field in ("guest", "gpn") and n:
            if array.dtype.kind not in "iu":
                raise TypeError(f"{field} has the dtype {array.dtype}; it must be of integers")
            if int(array.min()) < 0 or int(array.max()) >> 32:
                raise ValueError(f"{field} has values from {array.min()} to {array.max()}; 0 to 2**32 - 1 are possible")
    times = given["time"]
    if not np.isfinite(times).all() or (n and times[0] < 0) or (np.diff(times) < 0).any():
        raise ValueError("time must be finite, from 0 on, and ascend")
    records = np.empty(n, RECORD)
    for field, array in given.items():
        records[field] = array
    with open(path, "wb") as file:
        np.lib.format.write_array(file, records, allow_pickle=False)


def _open(path: str) -> NDArray[np.void]:
    """The records, mapped; no pickle is ever read."""
    try:
        records = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # what NumPy says of a broken header is of many kinds
        why = next(iter(str(error).splitlines()), "the file is broken")
        raise ValueError(f"{path}: no trace: {why}") from None
    if records.dtype != RECORD or records.ndim != 1:
        fields = ", ".join(f"{name} {RECORD[name].str}" for name in RECORD.names or ())
        raise ValueError(
            f"{path}: no trace: {records.ndim} dimensions of {records.dtype}; it must be one of records of {fields}"
        )
    return records
