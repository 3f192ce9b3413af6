"""Which guests may share: the file behind --domains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def read_domains(path: str, guests: Sequence[str]) -> list[str]:
    """The domain of each guest, in their order. ValueError unless the file's table names exactly these guests."""
    import msgspec  # only here: most scans have no such file, and their time includes every import

    class DomainsFile(msgspec.Struct, forbid_unknown_fields=True):
        domains: dict[str, str]

    try:
        table = msgspec.toml.decode(Path(path).read_bytes(), type=DomainsFile).domains
    except (msgspec.DecodeError, ValueError) as error:  # it names the line, or the field
        raise ValueError(f"{path}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: brackets are nested too deeply") from None
    known = set(guests)
    unknown = [name for name in table if name not in known]
    if unknown:
        raise ValueError(f"{path}: [domains] names '{unknown[0]}', which no source has; they are {_listed(guests)}")
    missing = [name for name in guests if name not in table]
    if missing:
        raise ValueError(f'{path}: [domains] lacks a line such as "{missing[0]}" = "some-domain"')
    return [table[name] for name in guests]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
