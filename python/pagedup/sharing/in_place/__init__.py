"""Sharing in place: equal pages of this process's own memory on one physical copy, writable as before."""

from pagedup.sharing.in_place.allocate import allocate
from pagedup.sharing.in_place.result import InPlace, Left
from pagedup.sharing.in_place.share import share_in_place

__all__ = ["InPlace", "Left", "allocate", "share_in_place"]
