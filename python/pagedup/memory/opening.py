"""From the texts that a user gives to open sources."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pagedup.memory.dumps.formats import open_image
from pagedup.memory.dumps.mapped_source import MappedSource
from pagedup.memory.layouts import Layout, LayoutSource
from pagedup.memory.layouts.saved import is_layout
from pagedup.memory.live.live_source import LiveSource
from pagedup.memory.live.process_source import ProcessSource
from pagedup.memory.live.qemu import QemuGuest, find_guest, find_guests
from pagedup.memory.live.qemu_source import QemuSource
from pagedup.memory.live.same_memory import same_memory
from pagedup.memory.live.take import DEFAULT, LiveOptions, take
from pagedup.memory.source import Progress, Source, SourceTextError

_KNOWN = "pid:N, qemu:NAME or the path of a memory dump"
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def open_sources(
    texts: Sequence[str],
    progress: Progress | None = None,
    *,
    frame_size: int = 4096,
    live: LiveOptions = DEFAULT,
) -> list[Source]:
    """Open every source that `texts` name, in that order; the caller closes them.

    A text is `pid:N` for a live process; `qemu:NAME`, `qemu:N` (its process number) or `qemu:PATH` (its QMP socket) for
    a live QEMU guest, `qemu:all` for all of them; or the path of a dump (ELF core, LiME or raw; the size of a raw image
    must be a multiple of `frame_size` bytes) or of a saved layout. A path that holds a colon is written with a
    directory: `./pid:1`. Raises SourceTextError for a text of no known form and for two texts that name one source,
    OSError for what cannot be read, or does not fit in memory.

    Where all are live, and frames are no smaller than pages, pages are only named: their extents are `NamedExtent`, and
    they can be compared with each other, but not with those of another call.

    Names are unique and easy to type: `pid:N`, the guest's name, or the file's name without its last suffix; those that
    agree in that are named by their texts as given.
    """
    wanted = _wanted(texts)
    with ExitStack() as stack:
        sources: list[Source] = []
        for index, (what, name) in enumerate(zip(wanted, _names(wanted), strict=True)):
            if progress is not None:
                progress("opening", index, len(wanted))
            source = _open(what, name, frame_size)
            sources.append(stack.enter_context(source))
            if isinstance(source, MappedSource):
                wanted[index] = replace(what, identity=source.identity)
        _refuse_repeats(wanted)  # again, since a path may have been given another file before it was opened
        if progress is not None:
            progress("opening", len(wanted), len(wanted))
        _refuse_mixture(sources)
        taken = [source for source in sources if isinstance(source, LiveSource)]
        _refuse_same_memory(taken)
        if taken:
            take(taken, live, frame_size=frame_size, alone=len(taken) == len(sources), progress=progress)
        stack.pop_all()
    return sources


def _open(what: _Wanted, name: str, frame_size: int) -> Source:
    if what.guest is not None:
        return QemuSource(name, what.text, what.guest)
    if what.pid is not None:
        return ProcessSource(name, what.text, what.pid)
    if is_layout(what.text):
        return LayoutSource(name, what.text, Layout.load(what.text))
    return open_image(name, what.text, frame_size)


def _refuse_mixture(sources: Sequence[Source]) -> None:
    layouts = [source for source in sources if isinstance(source, LayoutSource)]
    others = [source for source in sources if not isinstance(source, LayoutSource)]
    if layouts and others:
        raise OSError(
            f"{layouts[0].text}: holds names, which cannot be compared with the bytes of {others[0].text}; scan layouts"
            " alone, or make bytes of them with `pagedup layout --bytes`"
        )


def list_sources(texts: Sequence[str]) -> list[str]:
    """The same texts with `qemu:all` as one text a guest, so that all that asks afterwards means the same guests."""
    listed: list[str] = []
    for text in texts:
        if text == "qemu:all":
            guests = find_guests()
            if not guests:
                raise OSError("qemu:all: no QEMU runs here")
            listed += [f"qemu:{guest.pid}" for guest in guests]
        else:
            listed.append(text)
    return listed


def name_sources(texts: Sequence[str]) -> list[str]:
    """The names that the sources will have once they are open; raises as `open_sources`, but opens nothing."""
    return _names(_wanted(texts))


@dataclass(frozen=True, slots=True)
class _Wanted:
    text: str
    pid: int | None  # of a live process
    guest: QemuGuest | None  # if it is one of QEMU
    identity: tuple[int, ...]  # equal for two texts that name one source
    names: tuple[str, ...]  # what it may be called, best first; the last is unique


def _wanted(texts: Sequence[str]) -> list[_Wanted]:
    wanted = [_classify(text) for text in list_sources(texts)]
    _refuse_repeats(wanted)
    return wanted


def _classify(text: str) -> _Wanted:
    if text.startswith("pid:"):
        number = text.removeprefix("pid:")
        # The kernel's process numbers end at 2^22; the bound keeps absurd digits out of a path.
        if not (number.isascii() and number.isdigit() and len(number) <= 10 and int(number) > 0):
            raise SourceTextError(f"{text}: pid: takes a process number, such as pid:1234 (a file is written ./{text})")
        pid = int(number)
        return _Wanted(text, pid, None, (pid,), (f"pid:{pid}",))
    if text.startswith("qemu:"):
        return _of_guest(text, _find_guest(text, text.removeprefix("qemu:")))
    prefix = _PREFIX.match(text)
    if prefix and not os.path.lexists(text):
        raise SourceTextError(
            f"{text}: there is no kind of source named '{prefix[1]}:' and no such file; a source is {_KNOWN}"
        )
    if not text:
        raise SourceTextError(f"a source is empty; give {_KNOWN}")
    status = os.stat(text)
    names = (Path(text).stem or text, text, os.path.realpath(text))
    return _Wanted(text, None, None, (status.st_dev, status.st_ino), names)


def _find_guest(text: str, which: str) -> QemuGuest:
    if not which:
        raise SourceTextError(f"{text}: qemu: takes a guest's name, its process number, its QMP socket, or all")
    if "/" not in which:
        return find_guest(which)
    from pagedup.memory.live.qmp import guest_at  # only here, as few scans need it

    return guest_at(which)


def _of_guest(text: str, guest: QemuGuest) -> _Wanted:
    number = f"qemu:{guest.pid}"
    return _Wanted(text, guest.pid, guest, (guest.pid,), (guest.name, number) if guest.name else (number,))


def _refuse_repeats(wanted: list[_Wanted]) -> None:
    first: dict[tuple[int, ...], str] = {}
    for what in wanted:
        if what.identity in first:
            earlier = first[what.identity]
            same = "is given twice" if earlier == what.text else f"is the same source as {earlier}"
            raise SourceTextError(f"{what.text}: {same}; its memory can be counted only once")
        first[what.identity] = what.text


def _refuse_same_memory(sources: list[LiveSource]) -> None:
    same = same_memory([source.pid for source in sources])
    if same is not None:
        earlier, source = (sources[index].text for index in same)
        raise SourceTextError(f"{source}: is the same source as {earlier}; its memory can be counted only once")


def _names(wanted: list[_Wanted]) -> list[str]:
    """Give each its best name, and of those whose names clash the ones with a better choice left the next one."""
    rank = [0] * len(wanted)
    while True:
        holders: dict[str, list[int]] = {}
        for index, what in enumerate(wanted):
            holders.setdefault(what.names[rank[index]], []).append(index)
        shared = [same for same in holders.values() if len(same) > 1]
        clashes = [[i for i in same if rank[i] + 1 < len(wanted[i].names)] for same in shared]
        if not any(clashes):
            return [what.names[place] for what, place in zip(wanted, rank, strict=True)]
        for clash in filter(None, clashes):
            lowest = min(rank[i] for i in clash)
            for i in clash:
                rank[i] += rank[i] == lowest
