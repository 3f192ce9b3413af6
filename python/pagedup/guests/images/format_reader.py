"""lief, which reads the headers of PE: an extra, and imported only for such a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def lief(name: str) -> ModuleType:
    """The module. Raises ImportError that says how to get it to read the file `name`."""
    try:
        import lief
    except ImportError as error:
        raise ImportError(
            f"{name}: reading PE takes lief, which is not installed: pip install 'pagedup[images]' ({error})"
        ) from None
    lief.logging.disable()  # it prints what it finds odd; what matters is raised here
    return lief
