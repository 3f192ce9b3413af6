"""One guest's memory, wherever it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from pagedup.memory.extent import Extent, ZeroExtent

Progress = Callable[[str, int, int], None]
"""Called with the name of the phase, how much of it is done, and how much there is."""


class SourceTextError(ValueError):
    """The texts that name the sources are wrong in themselves: malformed, of no known form, or two for one source."""


class Source(ABC):
    """The memory of one guest, open for reading.

    `name` is unique among the sources opened together, `text` is what the user gave, `size` counts the bytes of memory
    (holes included), and `extents` says where they lie. `detail` tells a person more, such as a process's command.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, text: str, size: int, detail: str = "") -> None:
        self.name = name
        self.text = text
        self.size = size
        self.detail = detail
        self.extents: list[Extent | ZeroExtent] = []

    @abstractmethod
    def check(self) -> None:
        """Raise OSError when what was read since opening cannot be trusted. Call it after the last byte was read."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back; the extents' buffers end with it. Closing twice does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} from {self.text!r}, {self.size:,} bytes>"
