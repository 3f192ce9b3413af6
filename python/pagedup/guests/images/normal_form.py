"""The normal form of a page with fixups: what of it does not depend on the base, and one number that does.

Each field holds `base + c` for a constant c of its own. One field of the page leads: its value is the page's
parameter, and of the others only the difference to it is kept. So two pages that hold the same code at other places of
their images have one normal form, and equal parameters exactly where their bytes are equal.

A field that straddles two pages shows each of them some of its bytes, which is why a parameter may be only some bits of
`base + c`. Bits below the grain are the same at every base: where the page does not show them, they do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests.images.image import Image

_ONE, _EIGHT = np.uint64(1), np.uint64(8)


@dataclass(frozen=True, slots=True, eq=False)
class NormalForm:
    """Of the pages of an image that carry fixups, ascending: one item each.

    page: int64, its number in the image. layout: which bytes of it belong to fields, and how; pages with different
    layouts are different whatever their bytes. Its bytes at a base are told by bytes, layout, and
    `(base + offset >> shift) % 2 ** bits`: uint64, uint8, uint8.
    """

    page: NDArray[np.int64]
    layout: list[bytes]
    offset: NDArray[np.uint64]
    shift: NDArray[np.uint8]
    bits: NDArray[np.uint8]


def normal_form(image: Image, out: NDArray[np.uint8]) -> NormalForm:
    """Write an image's pages in normal form over zero bytes: (n_pages, 4096) uint8.

    Pages without fixups are as they are. Raises what `Image.pages()` raises.
    """
    image.fill(out)
    flat = out.reshape(-1)
    fields = image.fields
    fields.apply(flat, 0)
    if not image.fixups.any():
        none = np.empty(0, np.int64)
        return NormalForm(none, [], none.astype(np.uint64), none.astype(np.uint8), none.astype(np.uint8))
    shown = _Shown.of(image, flat)
    leads, begins = shown.leads()
    count = np.diff(np.append(begins, len(shown.page)))
    lead = np.repeat(leads, count)
    low, high, width = shown.low, shown.high, shown.width
    # Of a field that shows only some bytes, with nothing else on its page, those bits are all that matters.
    whole = (low[leads] == 0) & (high[leads] == width[leads])
    part = ~whole & (count == 1)
    offset = shown.constant[leads]
    shift = np.where(part, 8 * low[leads], 0).astype(np.uint8)
    bits = np.where(part, 8 * (high[leads] - low[leads]), 8 * width[leads]).astype(np.uint8)
    difference = shown.constant - shown.constant[lead]
    shown.write(flat, difference)
    # Low bits that a field does not show may still carry into those that it does.
    hidden = difference & ((_ONE << (_EIGHT * low.astype(np.uint64))) - _ONE)
    odd = np.add.reduceat((hidden != 0).astype(np.int64), begins) > 0
    codes = shown.codes()
    page = shown.page[begins]
    layout = []
    mixed = np.isin(page, np.unique(shown.page[shown.overlap]))
    for number, (start, n) in enumerate(zip(begins.tolist(), count.tolist(), strict=True)):
        key = codes[start : start + n].tobytes()
        if odd[number]:
            key += hidden[start : start + n].tobytes()
        layout.append(key)
    for number in np.flatnonzero(mixed).tolist():
        # Fields that overlap change each other's bytes: the page is like no other.
        layout[number] = b"%s page %d" % (image.name.encode("utf-8", "surrogateescape"), page[number])
        offset[number], shift[number], bits[number] = 0, 0, 64
    return NormalForm(page, layout, offset, shift, bits)


@dataclass(slots=True, eq=False)
class _Shown:
    """What pages show of fields, by page and place: of a field of `width` bytes those from `low` up to `high`.

    Bytes of a number count from its lowest, and the bits that a field leaves out count as bytes that it does not show.
    `at` is where the first of the shown bytes lies, and `constant` uint64 the field's value less the base.
    """

    page: NDArray[np.int64]
    at: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    width: NDArray[np.int64]
    constant: NDArray[np.uint64]
    overlap: NDArray[np.bool_]
    little: bool

    @classmethod
    def of(cls, image: Image, flat: NDArray[np.uint8]) -> _Shown:
        fields = image.fields
        # A page that shows only what no base changes has no part in the field.
        first, last = (byte // PAGE for byte in fields.changing())
        number = np.concatenate([np.arange(len(fields)), np.flatnonzero(first != last)])
        page = np.concatenate([first, last[first != last]])
        order = np.lexsort((fields.at[number], page))
        number, page = number[order], page[order]
        at, size, skip = fields.at[number], _wide(fields.size[number]), _wide(fields.shift[number]) // 8
        start = np.maximum(at, page * PAGE)
        end = np.minimum(at + size, (page + 1) * PAGE)
        little = fields.order == "<"
        low, high = (start - at, end - at) if little else (at + size - end, at + size - start)
        low, high, width = low + skip, high + skip, size + skip
        constant = fields.values(flat)[number] - np.uint64(image.preferred_base)
        hidden = np.minimum(8 * low, fields.grain).astype(np.uint64)
        constant = _modulo(constant >> hidden << hidden, width)
        return cls(page, start, low, high, width, constant, fields.overlap[number], little)

    def leads(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each page the field that leads, and the first one: the widest, of these one that is shown wholly."""
        begins = np.flatnonzero(np.diff(self.page, prepend=-1))
        rank = 2 * self.width + ((self.low == 0) & (self.high == self.width))
        best = np.maximum.reduceat(rank, begins)
        count = np.diff(np.append(begins, len(self.page)))
        place = np.where(rank == np.repeat(best, count), np.arange(len(rank)), len(rank))
        return np.minimum.reduceat(place, begins), begins

    def write(self, flat: NDArray[np.uint8], value: NDArray[np.uint64]) -> None:
        """Put these values where the fields are."""
        shown = self.high - self.low
        for n in range(1, 9):
            chosen = np.flatnonzero(shown == n)
            for byte in range(n if len(chosen) else 0):
                place = self.at[chosen] + (byte if self.little else n - 1 - byte)
                flat[place] = value[chosen] >> (_EIGHT * (self.low[chosen] + byte).astype(np.uint64)) & np.uint64(0xFF)

    def codes(self) -> NDArray[np.uint32]:
        """Place in the page, width, and the bytes shown of each, in one number."""
        code = (self.at % PAGE) << 16 | self.width << 12 | self.low << 8 | self.high << 4 | int(self.little)
        return code.astype(np.uint32)


def _wide(numbers: NDArray[np.uint8]) -> NDArray[np.int64]:
    return numbers.astype(np.int64)


def _modulo(value: NDArray[np.uint64], width: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Numbers of so many bytes."""
    unused = (64 - 8 * width).astype(np.uint64)
    return value << unused >> unused
