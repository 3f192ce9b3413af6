"""The oracle: what find_duplicates must say, by a dict of bytes, and what it must have read to find out."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

import dedupcore
from pagedup import Duplicates, GuestSummary, SharedContent, Summary, most_shared, summarize, summarize_guests

SAMPLED, LINE, BLOCK = 512, 64, 256  # hash.h, scan_bytes.h
MAX_TASKS, MIN_TASK_BYTES = 256, 1 << 20  # duplicates.c


@dataclass(frozen=True)
class Frame:
    """One frame of a snapshot."""

    guest: int
    address: int
    content: bytes


@dataclass(frozen=True)
class Snapshot:
    """All frames in the order of their numbers; n_bytes: of the guests' memory."""

    frame_size: int
    frames: tuple[Frame, ...]
    domains: tuple[Hashable, ...]  # one a guest
    n_bytes: int

    def coarse(self, factor: int) -> "Snapshot":
        """Its whole and aligned frames of a larger size."""
        size = self.frame_size * factor
        guests: dict[int, dict[int, bytes]] = defaultdict(dict)
        for frame in self.frames:
            guests[frame.guest][frame.address] = frame.content
        large = []
        for guest, memory in sorted(guests.items()):
            for base in sorted({address - address % size for address in memory}):
                parts = [memory.get(base + at) for at in range(0, size, self.frame_size)]
                if None not in parts:
                    large.append(Frame(guest, base, b"".join(part for part in parts if part is not None)))
        return Snapshot(size, tuple(large), self.domains, self.n_bytes)


def snapshot(
    guests: Sequence[Sequence[tuple[int, bytes]]], frame_size: int, domains: Sequence[Hashable] | None = None
) -> Snapshot:
    """From the extents (address, bytes) of each guest."""
    frames = [
        Frame(guest, address + at, content[at : at + frame_size])
        for guest, extents in enumerate(guests)
        for address, content in extents
        for at in range(0, len(content), frame_size)
    ]
    n_bytes = sum(len(content) for extents in guests for _, content in extents)
    return Snapshot(frame_size, tuple(frames), tuple([0] * len(guests) if domains is None else domains), n_bytes)


def check(found: Duplicates, expected: Snapshot) -> None:
    """Everything that a Duplicates says, and all that is derived from it."""
    frames, domains, size = expected.frames, expected.domains, expected.frame_size
    classes: dict[tuple[Hashable, bytes], list[int]] = defaultdict(list)
    for number, frame in enumerate(frames):
        classes[domains[frame.guest], frame.content].append(number)
    canonical = [classes[domains[frame.guest], frame.content][0] for frame in frames]
    zero = [not any(frame.content) for frame in frames]
    nonzero = {content: numbers for content, numbers in classes.items() if any(content[1])}
    n_guests = len(domains)
    offsets = np.cumsum([0] + [sum(frame.guest == guest for frame in frames) for guest in range(n_guests)])

    assert found.canonical.dtype == np.uint32
    assert not found.canonical.flags.writeable
    assert found.canonical.tolist() == canonical
    assert found.zero.dtype == np.bool_
    assert found.zero.tolist() == zero
    assert found.addresses.tolist() == [frame.address for frame in frames]
    assert found.guest_offsets.tolist() == offsets.tolist()
    assert (found.frame_size, found.n_frames, found.n_zero) == (size, len(frames), sum(zero))
    assert found.n_distinct == len(nonzero)
    assert found.excluded_bytes == expected.n_bytes - len(frames) * size
    pairs = [[number, first] for number, first in enumerate(canonical) if number != first and not zero[number]]
    assert found.pairs().tolist() == pairs
    assert found.pairs().shape == (len(pairs), 2)

    owners: dict[tuple[Hashable, bytes], Counter[int]] = {
        content: Counter(frames[number].guest for number in numbers) for content, numbers in nonzero.items()
    }
    by_guest = []
    for guest in range(n_guests):
        own = [frame for frame in frames if frame.guest == guest]
        held = [content for content, counts in owners.items() if guest in counts]
        n_nonzero = sum(any(frame.content) for frame in own)
        by_guest.append(
            GuestSummary(
                frames=len(own),
                zero=len(own) - n_nonzero,
                nonzero=n_nonzero,
                distinct=len(held),
                saved_within=n_nonzero - len(held),
                shared_across=sum(owners[content][guest] for content in held if len(owners[content]) > 1),
            )
        )
    assert summarize_guests(found) == by_guest
    assert found.within_guests().tolist() == [guest.saved_within for guest in by_guest]

    n_nonzero = len(frames) - sum(zero)
    within = sum(guest.saved_within for guest in by_guest)
    assert summarize(found) == Summary(
        page_size=size,
        frames=len(frames),
        zero=sum(zero),
        nonzero=n_nonzero,
        distinct=len(nonzero),
        saved_zero=sum(zero),
        saved_nonzero=n_nonzero - len(nonzero),
        saved_within_guests=within,
        saved_across_guests=n_nonzero - len(nonzero) - within,
        pages_shared=sum(len(numbers) > 1 for numbers in nonzero.values()),
        pages_sharing=sum(len(numbers) - 1 for numbers in nonzero.values()),
        pages_unshared=sum(len(numbers) == 1 for numbers in nonzero.values()),
        excluded_bytes=expected.n_bytes - len(frames) * size,
    )
    shared = sorted((-len(numbers), numbers[0], content) for content, numbers in nonzero.items() if len(numbers) > 1)
    listed = [
        SharedContent(first, frames[first].guest, frames[first].address, -copies, len(owners[content]))
        for copies, first, content in shared
    ]
    for k in {0, 1, 2, len(listed), len(listed) + 1}:
        assert most_shared(found, k) == listed[:k]


def work(memory: bytes, frame_size: int) -> dedupcore.Work:
    """The work that the frames of one span must take, unless two hashes collide."""
    n = len(memory) // frame_size
    contents = [memory[at : at + frame_size] for at in range(0, len(memory), frame_size)]
    if frame_size < SAMPLED:
        nonzero = [content for content in contents if any(content)]
        duplicates = len(nonzero) - len(set(nonzero))
        return dedupcore.Work(n, len(memory), 0, 0, duplicates, duplicates * frame_size, 0)

    signed = _bytes_signed(contents, frame_size)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for number, content in enumerate(contents):
        if any(content):
            samples = content[:LINE], content[-LINE:]
            groups[samples if any(samples[0] + samples[1]) else _block_at(content, bytes(frame_size))].append(number)
    hashed = compared = compared_bytes = not_read = 0
    for turn in range(3):
        again: list[int] = []
        next_groups: dict[Hashable, list[int]] = defaultdict(list)
        for lead, *members in groups.values():
            confirmed = False
            for member in members:
                compared += 1
                if contents[member] == contents[lead]:
                    compared_bytes += frame_size
                    confirmed = True
                else:
                    block = _block_at(contents[member], contents[lead])
                    compared_bytes += block[0] + BLOCK
                    again.append(member)
                    next_groups[lead, block].append(member)
            not_read += turn < 2 and not confirmed
        if turn == 1:  # what is left is hashed in full
            hashed = len(again)
            next_groups = defaultdict(list)
            for member in sorted(again):
                next_groups[contents[member]].append(member)
        groups = next_groups
    assert not groups
    return dedupcore.Work(n, signed, hashed, hashed * frame_size, compared, compared_bytes, not_read)


def _block_at(content: bytes, other: bytes) -> tuple[int, bytes]:
    """The first block in which they differ: its offset and what content has there."""
    at = next(at for at in range(0, len(content), BLOCK) if content[at : at + BLOCK] != other[at : at + BLOCK])
    return at, content[at : at + BLOCK]


def _bytes_signed(contents: Sequence[bytes], size: int) -> int:
    n = len(contents)
    per_task = max(-(-n // MAX_TASKS), MIN_TASK_BYTES // size, 1)
    total = 0
    for begin in range(0, n, per_task):
        task = contents[begin : begin + per_task]
        i = 0
        while i < len(task):
            total += 2 * LINE
            if not any(task[i][:LINE] + task[i][-LINE:]):
                zeros = 0
                while i < len(task) and not any(task[i]):
                    zeros, i = zeros + 1, i + 1
                total += zeros * size
                if i < len(task):
                    total += _block_at(task[i], bytes(size))[0] + BLOCK
            i += 1
    return total
