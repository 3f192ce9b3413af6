"""What a simulated guest is made of: the specification that layouts are generated from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pagedup.memory.layouts import PAGE

Size = int | str
"""Bytes, as a number or as text with a unit: "64 KiB", "1.5 GiB"."""
Share = Annotated[float, Meta(ge=0, le=1)]
"""A part of a whole, from 0 to 1."""
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Role = Literal["kernel", "driver", "library", "executable"]
System = Literal["windows-xp", "windows-7-x86", "windows-7-x64", "windows-10-x64", "linux"]

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?(B|KiB|MiB|GiB)", re.ASCII)
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LARGEST = 1 << 46  # bytes: what x86-64 can address


class SpecError(ValueError):
    """A specification makes no sense; the message names the field."""


def size_of(size: Size, field: str) -> int:
    """The size in bytes; SpecError, which names the field, if it is none."""
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        if match is None:
            raise SpecError(
                f'{field}: {size!r} is no size; write bytes, or a text such as "64 KiB", "512 MiB", "4 GiB"'
            )
        size = round(float(match[1]) * _UNITS[match[2]])
    if not 0 <= size <= _LARGEST:
        raise SpecError(f"{field}: {size:,} bytes; from 0 to {_LARGEST:,} are possible")
    return size


def pages_of(size: Size, field: str) -> int:
    """The size in pages, rounded up."""
    return -(-size_of(size, field) // PAGE)


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a TOML file, of these fields alone. The sizes in it are checked when it is made."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            if field.type == Size:
                size_of(getattr(self, field.name), field.name)


class ImageSet(Part, frozen=True, kw_only=True):
    """Images of one kind, all alike but for their content: made up, or read from real files.

    Made up: text, rdata, data are sizes in memory of one image, `*_fixups` is the share of such pages that hold base
    relocations; `imports` is the share of rdata pages that hold addresses of other images (import address tables,
    global offset tables) and `data_written` the share of data pages that a running image writes. Real: `path` names a
    file, directory or wheel, whose images say all that themselves but `data_written`.
    """

    name: Annotated[str, Meta(min_length=1)]
    role: Role
    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    text: Size = 0
    rdata: Size = 0
    data: Size = 0
    text_fixups: Share = 0.0
    rdata_fixups: Share = 0.0
    data_fixups: Share = 0.0
    imports: Share = 0.0
    data_written: Share = 0.5
    path: str = ""


class Content(Part, frozen=True, kw_only=True):
    """What anonymous memory holds, as shares of its pages; what is left is found nowhere else.

    zero: zero pages. common: the same in every guest. repeated: equal to another page of the same guest.
    """

    zero: Share = 0.0
    common: Share = 0.0
    repeated: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zero + self.common + self.repeated > 1 + 1e-9:
            raise ValueError("zero, common and repeated add up to more than 1")


class ProcessSet(Part, frozen=True, kw_only=True):
    """Processes of one program.

    libraries: how many of the guest's libraries each maps, the first ones. executable: the name of an image set, or
    "". heap, stack: anonymous memory of one process. large_pages: whether its heap is in guest pages of 2 MiB.
    """

    name: Annotated[str, Meta(min_length=1)]
    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    executable: str = ""
    libraries: Count = 0
    heap: Size = 0
    stack: Size = "64 KiB"
    content: Content = Content()
    large_pages: bool = False


class Kernel(Part, frozen=True, kw_only=True):
    """Memory of the kernel beside its images: pools and slabs, and what they hold."""

    data: Size = 0
    content: Content = Content()


class FileCache(Part, frozen=True, kw_only=True):
    """Pages of files, kept since there is room.

    size: at first; growth: in an hour, until memory is full. files: of how much the guest reads. hot: the share of the
    cache that holds the same pages in every guest; the rest are stretches of `files` that each guest chose by itself.
    repeated: the share of `files` that are copies of other ones close by. written: the share of pages that this guest
    alone has written. path: a directory, wheel or file whose real pages these are; `files` is then as large as it is,
    and `repeated` counts for nothing.
    """

    size: Size = 0
    growth: Size = 0
    files: Size = "4 GiB"
    hot: Share = 0.0
    repeated: Share = 0.0
    written: Share = 0.0
    path: str = ""


class Free(Part, frozen=True, kw_only=True):
    """What the guest does not use: the share that is zeroed, that holds what was there before; the rest is absent.

    pattern: memory with one content, the same in every guest, that the system wrote over what it gave back (Linux: 0xCC
    over what was needed to start only). The shares are of what is left then.
    """

    pattern: Size = 0
    zero: Share = 0.0
    stale: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zero + self.stale > 1 + 1e-9:
            raise ValueError("zero and stale add up to more than 1")


class Placement(Part, frozen=True, kw_only=True):
    """Where pages come to lie. fragmentation: the chance that a free block is split in two, from 4 MiB down to 4 KiB.

    same_order: every guest allocates in the same order; otherwise each in its own.
    """

    fragmentation: Share = 0.0
    same_order: bool = False


class GuestSpec(Part, frozen=True, kw_only=True):
    """One kind of guest.

    aslr: whether images are loaded at bases chosen at random, as `system` does it; otherwise all at the same ones.
    start: each guest was booted by itself, or all were resumed from one snapshot. hours: for how long they have run
    since. churn: the share of anonymous and file pages that a guest writes in an hour, beyond what it had at start.
    guests: how many there are where nobody says otherwise. sources: for each field where its value comes from.
    """

    name: str = "guest"
    system: System
    memory: Size
    aslr: bool = True
    start: Literal["boot", "snapshot"] = "boot"
    hours: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    churn: Share = 0.0
    guests: Annotated[int, Meta(ge=1, le=100_000)] = 1
    kernel: Kernel = Kernel()
    images: tuple[ImageSet, ...] = ()
    processes: tuple[ProcessSet, ...] = ()
    file_cache: FileCache = FileCache()
    free: Free = Free()
    placement: Placement = Placement()
    sources: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        size = size_of(self.memory, "memory")
        if not size or size % PAGE:
            raise ValueError(f"memory is {size:,} bytes; it must be a multiple of {PAGE:,}, and not 0")
        if size // PAGE >> 32:
            raise ValueError(f"memory is {size:,} bytes; it must be less than {PAGE << 32:,}")
        if not self.name or "/" in self.name or not self.name.isprintable():
            raise ValueError(f"name is {self.name!r}; it must be fit for the name of a file")
        for field, sets in (("images", self.images), ("processes", self.processes)):
            names = [own.name for own in sets]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{field}: '{twice}' is there twice; each set needs a name of its own")
        for processes in self.processes:
            own = next((images for images in self.images if images.name == processes.executable), None)
            if processes.executable and (own is None or own.role != "executable"):
                raise ValueError(
                    f"processes: '{processes.name}' runs '{processes.executable}', which is no image set of the role"
                    " executable"
                )


def checked(spec: GuestSpec) -> GuestSpec:
    """The same, with every field held against its type: made in Python, a struct takes anything. Raises SpecError."""
    try:
        return msgspec.convert(msgspec.to_builtins(spec), GuestSpec)
    except (msgspec.ValidationError, TypeError) as error:
        raise SpecError(str(error)) from None


def read_spec(path: str) -> GuestSpec:
    """The specification in a TOML file. OSError if it cannot be read, SpecError for what is wrong, with its field."""
    try:
        return msgspec.toml.decode(Path(path).read_bytes(), type=GuestSpec)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: bytes or digits that TOML's reader refuses
        raise SpecError(f"{path}: {error}") from None
    except RecursionError:
        raise SpecError(f"{path}: brackets are nested too deeply") from None
