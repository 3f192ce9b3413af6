"""A QEMU guest by its QMP socket: which process it is, and which RAM it has, as QEMU itself tells."""

from __future__ import annotations

import socket
import struct
from typing import Any

from pagedup.memory.qemu import QemuGuest

_PATIENCE = 5.0  # seconds; a socket has one client at a time, and another may hold it
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


def guest_at(path: str) -> QemuGuest:
    """The guest behind the socket at `path`. Asks only: nothing of the guest is changed.

    Raises OSError where nobody answers, or the extra `qemu` is not installed.
    """
    import asyncio  # both only here: slow to import, and the second one is an extra

    try:
        from qemu.qmp import QMPClient, QMPError
    except ImportError as error:
        raise OSError(f"qemu:{path}: QMP cannot be spoken: {error}; try: pip install 'pagedup[qemu]'") from None

    async def ask(connection: socket.socket) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        client = QMPClient("pagedup")
        await client.connect(connection)
        try:
            return await client.execute("query-name"), await client.execute("query-memdev")  # type: ignore[return-value]
        finally:
            await client.disconnect()

    with _connected(path) as connection:
        pid: int = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )[0]
        try:
            name, backends = asyncio.run(asyncio.wait_for(ask(connection), _PATIENCE))
        except TimeoutError:
            raise OSError(
                f"qemu:{path}: no answer in {_PATIENCE:g} s; a QMP socket serves one client at a time, and another"
                f" (libvirt?) may hold it; without QMP the guest is qemu:{pid}"
            ) from None
        except QMPError as error:
            raise OSError(f"qemu:{path}: does not answer as QMP does: {error}") from None
    return QemuGuest(pid, name.get("name", ""), tuple((backend["id"], backend["size"]) for backend in backends))


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        connection.setblocking(False)
    except OSError as error:
        connection.close()
        raise OSError(error.errno, f"is no QMP socket that can be used: {error.strerror}", path) from None
    return connection
