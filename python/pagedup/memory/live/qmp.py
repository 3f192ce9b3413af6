"""A QEMU guest by its QMP socket: which process it is, and where its RAM lies there, as QEMU itself tells."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pagedup.memory.live.qemu import QemuGuest, RamBlock, guest_of

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

_PATIENCE = 5.0  # seconds; a socket has one client at a time, and another may hold it
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_PAGE = 4096  # bytes; QEMU rounds the size of a block up to it

# What QEMU's monitor for people prints: QMP itself tells no host addresses, and `info ramblock` does not in QEMU 7.2.
_ADDRESS_SPACE = "FlatView #"
_GUEST_MEMORY = ' AS "memory",'
_REGION = re.compile(r"^ *([0-9a-f]{16})-([0-9a-f]{16}) \([^)]*\): (\S+)(?: @([0-9a-f]{16}))?", re.MULTILINE)
_HOST_ADDRESS = re.compile(r"Host virtual address for 0x[0-9a-f]+ \((.*)\) is 0x([0-9a-f]{1,16})")

_HELD = "; a QMP socket serves one client at a time, and another (libvirt?) may hold it; without QMP the guest is"


def guest_at(path: str) -> QemuGuest:
    """The guest behind the socket at `path`. Asks only: nothing of the guest is changed, and it runs on.

    Its RAM is what has a memory backend and lies in the guest's physical addresses. So neither video memory and ROMs,
    which have none, nor backends that nothing uses.

    Raises OSError where nobody answers within 5 seconds, or not as QEMU does, or the extra `qemu` is not installed.
    """
    import asyncio  # both only here: slow to import, and the second one is an extra

    try:
        from qemu.qmp import QMPClient, QMPError
    except ImportError:
        raise OSError(
            f"qemu:{path}: QMP takes the package qemu.qmp, which is not installed: pip install 'pagedup[qemu]'"
        ) from None

    async def ask(connection: socket.socket) -> QemuGuest:
        client = QMPClient("pagedup")
        client.logger.disabled = True  # what it logs is in its errors
        await client.connect(connection)
        try:
            return replace(
                guest,
                name=(await _execute(client, "query-name")).get("name", ""),
                status=(await _execute(client, "query-status"))["status"],
                blocks=await _blocks(client),
            )
        finally:
            await client.disconnect()

    with _connected(path) as connection:
        guest = _process(path, connection)
        try:
            return asyncio.run(asyncio.wait_for(ask(connection), _PATIENCE))
        except TimeoutError:
            raise OSError(f"qemu:{path}: no answer in {_PATIENCE:g} s{_HELD} qemu:{guest.pid}") from None
        except (QMPError, OSError, EOFError) as error:
            raise OSError(f"qemu:{path}: does not answer as QMP does: {error}") from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise OSError(f"qemu:{path}: QEMU answers in a form that is not known: {error}") from None


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(path)
        connection.setblocking(False)
    except BlockingIOError:  # others wait already
        connection.close()
        raise OSError(f"qemu:{path}: more clients wait for this socket than it takes{_HELD} qemu:NAME") from None
    except OSError as error:
        connection.close()
        raise OSError(f"qemu:{path}: is no QMP socket that can be used: {error.strerror or error}") from None
    return connection


def _process(path: str, connection: socket.socket) -> QemuGuest:
    """The QEMU that listens there."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    guest = guest_of(pid)
    if guest is None:
        raise OSError(
            f"qemu:{path}: who opened this socket (process {pid}) is no QEMU; give the guest's name or process number"
        )
    return guest


async def _execute(client: QMPClient, command: str, line: str | None = None) -> Any:
    return await client.execute(command, None if line is None else {"command-line": line})


async def _blocks(client: QMPClient) -> tuple[RamBlock, ...]:
    """The RAM in the guest's physical addresses, by these."""
    sizes = {backend.get("id"): backend["size"] for backend in await _execute(client, "query-memdev")}
    regions = _largest_regions(await _execute(client, "human-monitor-command", "info mtree -f"))
    blocks = []
    for name, (start, _, offset) in sorted(regions.items(), key=lambda region: region[1][0]):
        if name in sizes:
            answer = await _execute(client, "human-monitor-command", f"gpa2hva {start:#x}")
            match = _HOST_ADDRESS.match(answer)
            if match is None or match[1] != name:
                raise ValueError(f"'gpa2hva {start:#x}' gives '{answer.strip()[:200]}' where {name} lies")
            begin = int(match[2], 16) - offset
            blocks.append(RamBlock(name, begin, begin + -(-sizes[name] // _PAGE) * _PAGE))
    if not blocks:
        raise ValueError("'info mtree -f' shows no region of a memory backend")
    return tuple(blocks)


def _largest_regions(text: str) -> dict[str, tuple[int, int, int]]:
    """For each block that the guest sees, of its largest piece there: first and last address, offset in the block.

    The largest, since the firmware moves small ones about.
    """
    largest: dict[str, tuple[int, int, int]] = {}
    for view in text.split(_ADDRESS_SPACE):
        if _GUEST_MEMORY in view:
            for first, last, name, offset in _REGION.findall(view):
                region = (int(first, 16), int(last, 16), int(offset or "0", 16))
                if name not in largest or region[1] - region[0] > largest[name][1] - largest[name][0]:
                    largest[name] = region
    return largest
