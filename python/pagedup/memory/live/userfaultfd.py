"""Write protection that the kernel lifts by itself at a write, page by page (Linux's userfaultfd.rst)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct

_SYSCALL = {"x86_64": 323, "aarch64": 282}  # asm/unistd.h

# linux/userfaultfd.h
_USER_MODE_ONLY = 1  # what nobody needs a right for; whatever the kernel itself writes is seen all the same
_API, _REGISTER, _UNREGISTER = 0xC018AA3F, 0xC020AA00, 0x8010AA01
_VERSION = 0xAA
_MODE_WP = 1 << 1
_WP_UNPOPULATED, _WP_ASYNC = 1 << 13, 1 << 15  # without both, PAGEMAP_SCAN protects nothing

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def open_userfaultfd() -> int:
    """A new userfaultfd, whose memory is protected asynchronously: no write waits for anybody. Close it after use.

    Raises OSError in one line where the kernel lacks it or forbids it.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"a dirty log cannot be kept on {platform.machine()}")
    fd: int = _libc.syscall(ctypes.c_long(number), ctypes.c_long(os.O_CLOEXEC | _USER_MODE_ONLY))
    if fd < 0:
        error = ctypes.get_errno()
        if error == errno.EINVAL:  # the flag is of Linux 5.11
            raise _too_old()
        raise OSError(error, f"a dirty log needs the system call userfaultfd, which fails: {os.strerror(error)}")
    try:
        fcntl.ioctl(fd, _API, bytearray(struct.pack("=3Q", _VERSION, _WP_UNPOPULATED | _WP_ASYNC, 0)))
    except OSError:
        os.close(fd)
        raise _too_old() from None
    return fd


def register(fd: int, start: int, size: int) -> None:
    """Let pages be protected there; none is yet. Raises OSError: EBUSY if another userfaultfd has some of it."""
    fcntl.ioctl(fd, _REGISTER, bytearray(struct.pack("=4Q", start, size, _MODE_WP, 0)))


def unregister(fd: int, start: int, size: int) -> None:
    """Lift all protection there, for good. Raises OSError."""
    fcntl.ioctl(fd, _UNREGISTER, struct.pack("=2Q", start, size))


def _too_old() -> OSError:
    return OSError(errno.EOPNOTSUPP, f"a dirty log needs Linux 6.7 or newer; this is {platform.release()}")
