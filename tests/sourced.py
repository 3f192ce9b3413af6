"""TOML files in which each value has its source: which values there are, and which a source is of."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

KINDS = ("published: ", "measured: ", "tuned: ", "assumed: ")
# Which thing is meant, and no value that could be right or wrong.
IDENTITY = ("name", "role", "executable", "kind", "layout")


def fields_of(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted fields that a table sets; parts of a list go by their names, or by what else tells them apart."""
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from fields_of(value, f"{path}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for part in value:
                own = next(part[name] for name in IDENTITY if name in part)
                yield from fields_of(part, f"{path}.{own}.")
        elif key not in IDENTITY and path not in ("system", "sources"):
            yield path


def covers(source: str, field: str) -> bool:
    """Whether a source is one of a field: its own, or that of a table around it; * stands for any name."""
    asked, given = source.split("."), field.split(".")
    return len(asked) <= len(given) and all(map(fnmatchcase, given, asked))
