"""Simulated guests: from a specification of an operating system and its load to layouts, and from these to bytes."""

from pagedup.guests.generate import generate
from pagedup.guests.materialize import Texture, materialize
from pagedup.guests.of_images import specs_of_images
from pagedup.guests.presets import preset, preset_names
from pagedup.guests.spec import (
    Content,
    FileCache,
    Free,
    GuestSpec,
    ImageSet,
    Kernel,
    Placement,
    ProcessSet,
    SpecError,
    read_spec,
)
from pagedup.memory.layouts import Layout, LayoutRegion, RegionKind

__all__ = [
    "Content",
    "FileCache",
    "Free",
    "GuestSpec",
    "ImageSet",
    "Kernel",
    "Layout",
    "LayoutRegion",
    "Placement",
    "ProcessSet",
    "RegionKind",
    "SpecError",
    "Texture",
    "generate",
    "materialize",
    "preset",
    "preset_names",
    "read_spec",
    "specs_of_images",
]
