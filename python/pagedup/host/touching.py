"""How guests' accesses are done: what is not in memory comes back first, and room is made where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.host.costs import Operation
from pagedup.host.guest_memory import Filled
from pagedup.sharing.frame_pool import OUT

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from pagedup.host.guest import HostGuest
    from pagedup.host.host import Host

_AT_ONCE = 1024  # accesses for which room is made together


class Touching:
    """Does accesses of a host's guests, and charges them what they wait for.

    Attributes:
        accesses: that were done.
    """

    def __init__(self, host: Host) -> None:
        self.accesses = 0
        self._host = host

    def touch(
        self,
        guest: HostGuest,
        gpns: NDArray[np.uint32],
        writes: NDArray[np.bool_],
        data: NDArray[Any],
        *,
        any_page: bool,
    ) -> int:
        """Do accesses in this order, and return how many could be done: no memory is found for the next one.

        data: what each write puts into its page. any_page: whether they care for no use of pages, as those of a trace.
        """
        done = written = 0
        while done < len(gpns):
            rest, which = gpns[done:], writes[done:]
            n = self._in_guest(guest, rest, which if any_page else None)
            did = self._in_host(guest, rest[:n], which[:n], data[written:])
            written += int(np.count_nonzero(which[:did]))
            done += did
            if not n or did < n:
                break
        self.accesses += done
        return done

    def fill(self, guest: HostGuest, filled: Filled) -> int:
        """Write pages that the guest's system has filled, and return how many: for others there is no memory."""
        gpns, done = filled.gpns, 0
        while done < len(gpns):
            room = self.with_room(guest, len(gpns) - done)
            if not room:
                guest.memory.unfill(Filled(gpns[done:], filled.data[done:]))
                break
            before = self._host.pool.counts()
            self._host.pager.write(guest.pool, gpns[done : done + room], filled.data[done : done + room])
            guest.pool.touch(gpns[done : done + room])
            now = self._host.pool.counts()
            guest.ledger.charge(Operation.FIRST_TOUCH, now.first_touches - before.first_touches)
            guest.ledger.charge(Operation.COW_BREAK, now.cow_breaks - before.cow_breaks)
            done += room
        return done

    def with_room(self, guest: HostGuest, pages: int) -> int:
        """Up to so many pages, or what there is room for when the policies have tried to make some."""
        if self._host.free < pages:
            self._host.make_room(min(pages, _AT_ONCE), guest)
        return min(pages, self._host.free)

    def _in_guest(self, guest: HostGuest, gpns: NDArray[np.uint32], writes: NDArray[np.bool_] | None) -> int:
        """Bring back what the guest itself has paged out; how many of the accesses can be done then."""
        done, filled = guest.memory.fault(gpns, writes)
        written = self.fill(guest, filled)
        if written < len(filled.gpns):
            return int(np.argmax(np.isin(gpns[:done], filled.gpns[written:])))
        return done

    def _in_host(
        self, guest: HostGuest, gpns: NDArray[np.uint32], writes: NDArray[np.bool_], data: NDArray[Any]
    ) -> int:
        """Do accesses to pages that the guest has in its memory, be they paged out by the hypervisor or not."""
        done = written = failed = 0
        while done < len(gpns):
            # What stands in the way is dealt with in parts, and in ever smaller ones, where it was in vain for all.
            part = slice(done, done + max(1, _AT_ONCE >> failed) if failed else None)
            if guest.pool.out:
                self._page_in(guest, gpns[part])
            which = writes[part]
            content = data[written : written + int(np.count_nonzero(which))]
            touched = guest.pool.touch(gpns[part], which, content)
            guest.ledger.charge(Operation.FIRST_TOUCH, touched.first_touches)
            guest.ledger.charge(Operation.COW_BREAK, touched.cow_breaks)
            written += int(np.count_nonzero(which[: touched.done]))
            done += touched.done
            if touched.done == len(which):
                failed = 0
                continue
            failed = 0 if touched.done else failed + 1
            if failed > _AT_ONCE.bit_length() or not self._find_room(guest, gpns[done:], writes[done:], failed):
                break
        return done

    def _find_room(
        self, guest: HostGuest, gpns: NDArray[np.uint32], writes: NDArray[np.bool_], failed: int
    ) -> bool:
        """Room for the next of these accesses, of which the first cannot be done; False: the guest has to wait."""
        some = slice(max(1, _AT_ONCE >> failed))
        needs = _are_out(guest, gpns[some]) | (writes[some] & ~guest.pool.alone(gpns[some]))
        return self.with_room(guest, max(1, len(np.unique(gpns[some][needs])))) > 0

    def _page_in(self, guest: HostGuest, gpns: NDArray[np.uint32]) -> None:
        """Bring back what the hypervisor has paged out of these pages, as far as there is room for that.

        Raises PageLost and OSError of Pager.page_in.
        """
        out = _out(guest, gpns)
        if len(out) > self._host.free:
            self.with_room(guest, len(out))
            out = _out(guest, gpns)[: self._host.free]  # others may have gone
        if len(out):
            before = guest.ledger.seconds
            done = self._host.pager.page_in(guest.pool, out)
            guest.ledger.charge(Operation.UNCOMPRESS, done.uncompressed)
            guest.ledger.charge(Operation.SWAP_IN, done.swapped)
            self._host.paged_out.came_back(guest, out, guest.ledger.seconds - before)


def _are_out(guest: HostGuest, gpns: NDArray[np.uint32]) -> NDArray[np.bool_]:
    out: NDArray[np.bool_] = (guest.pool.marks.take(gpns) & OUT) > 0
    return out


def _out(guest: HostGuest, gpns: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Those that are out, each once, in the order in which they are needed."""
    out = gpns[_are_out(guest, gpns)]
    pages, first = np.unique(out, return_index=True)
    return pages[np.argsort(first)]
