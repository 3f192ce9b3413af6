"""Geometries of CPUs, from what is published of them; none was fitted to anything measured here.

Entries and ways of TLBs, and sizes of data caches: CPUID dumps in InstLatx64 (github.com/InstLatx64/InstLatx64), but
where a remark says otherwise. Zen's second level is one skewed array of both page sizes, of which CPUID tells the ways
that one page may be in; all its ways are taken here. Sizes of page-walk caches are AMD's (64 entries for PDPTE and
PML4E; PDEs are in the second level), and assumed for Intel, which publishes none: 32, 4 and 4. The nested TLB is
assumed: 16, as in Bhargava et al., "Accelerating two-dimensional page walks for virtualized systems", ASPLOS 2008. The
clock is the boost of usual server parts.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from pagedup.tlb.geometry import Cache, Geometry

_4K, _2M, _1G = 1 << 12, 1 << 21, 1 << 30
_KIB, _MIB = 1024 // 64, (1 << 20) // 64  # lines


def _zen(name: str, l1: int, l2: Cache, gib: int, data: tuple[Cache, Cache, Cache], **costs: object) -> Geometry:
    caches = {"dtlb": Cache(l1), "stlb": l2, "pdc": Cache(64), "ntlb": Cache(16)}
    if gib:
        caches["stlb 1G"] = Cache(gib)
    return Geometry(
        name=name,
        caches=caches,
        l1={_4K: "dtlb", _2M: "dtlb", _1G: "dtlb"},
        l2={_4K: "stlb", _2M: "stlb", _1G: "stlb 1G" if gib else "stlb"},
        smashed={} if gib else {_1G: _2M},
        walk=("stlb", "pdc", "pdc"),
        nested="ntlb",
        host_walk=("stlb", "pdc", "pdc"),
        data=data,
        l2_cycles=7,  # Chips and Cheese: Genoa-X, 2023 (Zen 4); Neoverse N1 and Zen 2, 2021
        **costs,  # type: ignore[arg-type]
    )


def _intel(name: str, dtlb: Cache, l2: dict[str, Cache], gib: Cache, **costs: object) -> Geometry:
    return Geometry(
        name=name,
        caches={
            "dtlb": dtlb,
            "dtlb 2M": Cache(32, 4),
            "dtlb 1G": gib,
            **l2,
            "pde": Cache(32),
            "pdpte": Cache(4),
            "pml4": Cache(4),
            "host pde": Cache(32),
            "host pdpte": Cache(4),
            "host pml4": Cache(4),
            "ntlb": Cache(16),
        },
        l1={_4K: "dtlb", _2M: "dtlb 2M", _1G: "dtlb 1G"},
        l2={_4K: "stlb", _2M: "stlb 2M" if "stlb 2M" in l2 else "stlb", _1G: "stlb 1G"},
        walk=("pde", "pdpte", "pml4"),
        nested="ntlb",
        host_walk=("host pde", "host pdpte", "host pml4"),
        **costs,  # type: ignore[arg-type]
    )


_L1D, _L1D_48 = Cache(32 * _KIB, 8), Cache(48 * _KIB, 12)
_ICE_LAKE_L2 = {"stlb": Cache(2048, 16), "stlb 2M": Cache(1024, 8), "stlb 1G": Cache(1024, 8)}
# Two halves: 4 KiB are in both, 2 MiB in one and 1 GiB in the other. Here each has its own: too much for mixtures.

MICROARCHITECTURES: dict[str, Geometry] = {
    geometry.name: geometry
    for geometry in (
        _zen(
            "Zen 2",
            64,
            Cache(2048, 16),
            0,
            (_L1D, Cache(512 * _KIB, 8), Cache(16 * _MIB, 16)),
            data_cycles=(4, 13, 34),
            memory_ns=113,
            ghz=3.35,
            source="latencies: AnandTech, Rome review, 2019 (EPYC 7742)",
        ),
        _zen(
            "Zen 3",
            64,
            Cache(2048, 16),
            64,
            (_L1D, Cache(512 * _KIB, 8), Cache(32 * _MIB, 16)),
            data_cycles=(4, 12, 47),
            memory_ns=112,
            ghz=3.5,
            source="latencies: Chips and Cheese, Sapphire Rapids, 2023 (EPYC 7763)",
        ),
        _zen(
            "Zen 4",
            72,
            Cache(3072, 24),
            64,
            (_L1D, Cache(1 * _MIB, 8), Cache(32 * _MIB, 16)),
            data_cycles=(4, 14, 50),
            memory_ns=112,
            ghz=3.7,
            source="latencies: InstLatx64 (Storm Peak); memory: assumed that of Zen 3",
        ),
        _zen(
            "Zen 5",
            96,
            Cache(4096, 16),
            1024,
            (_L1D_48, Cache(1 * _MIB, 16), Cache(32 * _MIB, 16)),
            data_cycles=(4, 14, 45),
            memory_ns=130,
            ghz=4.1,
            source="ways, L1 and L2 latency: assumed; L3 and memory: Chips and Cheese (Turin)",
        ),
        _intel(
            "Skylake-SP",
            Cache(64, 4),
            {"stlb": Cache(1536, 12), "stlb 1G": Cache(16, 4)},
            Cache(4, 4),
            data=(_L1D, Cache(1 * _MIB, 16), Cache(22 * _MIB, 11)),
            l2_cycles=9,
            data_cycles=(4, 14, 72),
            memory_ns=85,
            ghz=3.0,
            source="latencies: InstLatx64 (i9-7900X); memory: assumed; L3: 16 cores of 1.375 MiB",
        ),
        _intel(
            "Ice Lake-SP",
            Cache(64, 4),
            _ICE_LAKE_L2,
            Cache(8),
            data=(_L1D_48, Cache(1280 * _KIB, 20), Cache(24 * _MIB, 12)),
            l2_cycles=7,
            data_cycles=(5, 14, 75),
            memory_ns=100,
            ghz=3.2,
            source="L2: Chips and Cheese, Sapphire Rapids, 2023; other latencies: assumed; L3: 16 cores of 1.5 MiB",
        ),
        _intel(
            "Sapphire Rapids",
            Cache(96, 6),
            _ICE_LAKE_L2,
            Cache(8),
            data=(_L1D_48, Cache(2 * _MIB, 16), Cache(60 * _MIB, 15)),
            l2_cycles=7,
            data_cycles=(5, 16, 125),
            memory_ns=107,
            ghz=3.8,
            source="Chips and Cheese, Sapphire Rapids, 2023; first level: Bakhvalov, Performance Analysis and Tuning on"
            " Modern CPUs; L3: 32 cores of 1.875 MiB",
        ),
    )
}

# Vendor, family and models, as /proc/cpuinfo has them.
_MODELS: tuple[tuple[str, int, range, str], ...] = (
    ("AuthenticAMD", 23, range(0x30, 0x100), "Zen 2"),
    ("AuthenticAMD", 25, range(0x00, 0x10), "Zen 3"),
    ("AuthenticAMD", 25, range(0x20, 0x60), "Zen 3"),
    ("AuthenticAMD", 25, range(0x10, 0x20), "Zen 4"),
    ("AuthenticAMD", 25, range(0x60, 0x100), "Zen 4"),
    ("AuthenticAMD", 26, range(0x00, 0x100), "Zen 5"),
    ("GenuineIntel", 6, range(85, 86), "Skylake-SP"),
    ("GenuineIntel", 6, range(106, 109), "Ice Lake-SP"),
    ("GenuineIntel", 6, range(143, 144), "Sapphire Rapids"),
    ("GenuineIntel", 6, range(207, 208), "Sapphire Rapids"),
)


def microarchitecture(name: str) -> Geometry:
    """The geometry of that name. Raises ValueError that tells the names."""
    if name not in MICROARCHITECTURES:
        raise ValueError(f"there is no microarchitecture {name!r}; there are {', '.join(MICROARCHITECTURES)}")
    return MICROARCHITECTURES[name]


@cache
def this_cpu() -> Geometry:
    """The geometry of the CPU that this runs on, by what /proc/cpuinfo says that it is.

    Raises LookupError for one that the table does not have.
    """
    return by_cpuinfo(Path("/proc/cpuinfo").read_text())


def by_cpuinfo(text: str) -> Geometry:
    """The same for the text of a /proc/cpuinfo."""
    found = {key: re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE) for key in ("vendor_id", "cpu family", "model")}
    vendor, family, model = (match[1] if match else "" for match in found.values())
    if family.isdecimal() and model.isdecimal():
        for maker, generation, models, name in _MODELS:
            if (vendor, int(family)) == (maker, generation) and int(model) in models:
                return MICROARCHITECTURES[name]
    raise LookupError(
        f"vendor {vendor or 'unknown'}, family {family or 'unknown'}, model {model or 'unknown'} is none of"
        f" {', '.join(MICROARCHITECTURES)}; give a Geometry"
    )
