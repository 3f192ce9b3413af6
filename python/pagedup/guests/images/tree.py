"""All files of a directory, of a root file system, of a wheel or another zip."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib

from pagedup.guests.images.content import Content, OpenFile, open_regular
from pagedup.guests.images.error import ImageError
from pagedup.guests.images.image import Image
from pagedup.guests.images.loading import image_or_file

_CHUNK = 1 << 20  # bytes unpacked at once
_BROKEN = (  # what zipfile raises of a corrupt file, or of one that takes a password or another method
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


def load_tree(path: str | os.PathLike[str]) -> list[Image]:
    """The images of all regular files that are not empty, by path, under a directory or in a zip.

    PE and ELF become images, all else plain files; so does a corrupt binary, whose `flaw` then says what is wrong.
    Symbolic links are not followed, other file systems not entered, and of several names of one file only the first is
    taken. A zip is unpacked into a file that has no name and goes with the last image. Raises OSError for what cannot
    be read, ImageError for a file that is no zip or a corrupt one, ImportError without lief where there are binaries.
    """
    text = os.fspath(path)
    contents = _walk(text) if stat.S_ISDIR(os.stat(text).st_mode) else _unpack(text)
    return [image_or_file(content) for content in contents]


def _walk(root: str) -> list[Content]:
    device = os.stat(root).st_dev
    found: list[tuple[str, int, tuple[int, int]]] = []
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if status.st_dev == device:
                        folders.append(entry.path)
                elif stat.S_ISREG(status.st_mode) and status.st_size:
                    found.append((entry.path, status.st_size, (status.st_dev, status.st_ino)))
    found.sort()
    first: dict[tuple[int, int], Content] = {}
    for path, size, identity in found:
        first.setdefault(identity, Content(path, size, path))
    return list(first.values())


def _unpack(path: str) -> list[Content]:
    fd, _ = open_regular(path)
    with open(fd, "rb") as file, tempfile.TemporaryFile() as target:
        kept = OpenFile(target.fileno())
        try:
            with zipfile.ZipFile(file) as archive:
                # Of two members with one name the last one counts, as it does for whoever unpacks them.
                members = {member.filename: member for member in archive.infolist()}
                found = []
                for name, member in sorted(members.items()):
                    if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
                        continue
                    start = target.tell()
                    with archive.open(member) as source:
                        shutil.copyfileobj(source, target, _CHUNK)
                    if size := target.tell() - start:
                        found.append(Content(f"{path}/{name}", size, start=start, file=kept))
                return found
        except _BROKEN as error:
            raise ImageError(f"{path}: is neither a directory nor a sound zip: {error}") from None
        except OSError as error:
            if error.errno != errno.EINVAL:  # which an offset before the file's beginning comes to
                raise
            raise ImageError(f"{path}: is not a sound zip: an offset in it is outside") from None
