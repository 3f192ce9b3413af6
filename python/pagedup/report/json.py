"""The scan as data, in schema `pagedup.scan/1` (docs/scan-json.md)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pagedup.report.scan_result import ScannedGuest, ScanResult

SCAN_SCHEMA = "pagedup.scan/1"


def scan_json(result: ScanResult) -> dict[str, Any]:
    """The result as what `json.dumps` takes."""
    names = [guest.name for guest in result.guests]
    found: dict[str, Any] = {
        "schema": SCAN_SCHEMA,
        "guests": [_guest(guest) for guest in result.guests],
        "page_sizes": [asdict(summary) for summary in result.page_sizes],
        "per_guest": [
            {"name": name, "page_size": result.page_size, **asdict(summary)}
            for name, summary in zip(names, result.per_guest, strict=True)
        ],
        "most_shared": [
            {
                "page_size": result.page_size,
                "guest": names[content.guest],
                "address": content.address,
                "copies": content.copies,
                "guests": content.n_guests,
            }
            for content in result.most_shared
        ],
        "work": dict(result.work),
    }
    found.update(_optional(result))
    return found


def _optional(result: ScanResult) -> dict[str, Any]:
    """What not every scan has."""
    parts = {
        "ksm": result.ksm,
        "large_pages": result.large_pages,
        "isolation": result.isolation,
        "numa": result.numa,
        "volatile": result.volatile,
        "lifetime": result.lifetime,
        "explanation": result.explanation,
    }
    found: dict[str, Any] = {name: asdict(part) for name, part in parts.items() if part is not None}
    if result.lifetime is not None:
        found["lifetime"]["unchanged"] = [
            {"seconds": seconds, "pages": pages} for seconds, pages in result.lifetime.unchanged
        ]
    if result.relocation:
        found["relocation"] = [asdict(row) for row in result.relocation]
    if result.regions:
        found["regions"] = [{"page_size": result.page_size, **asdict(region)} for region in result.regions]
    return found


def _guest(guest: ScannedGuest) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": guest.name,
        "source": guest.source,
        "bytes": guest.bytes,
        "kind": guest.kind,
    }
    if guest.detail:
        fields["detail"] = guest.detail
    if guest.domain is not None:
        fields["domain"] = guest.domain
    if guest.apart:
        fields["apart"] = {str(reason): size for reason, size in guest.apart.items()}
    return fields
