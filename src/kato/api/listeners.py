"""The sockets on which a server listens: bound to one port, closed without cutting anybody off."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kato.api.instance import release
from kato.settings import Settings, SettingsError

_SO_ATTACH_FILTER = 26
_DROP_SYN = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte with TCP's flags
        (0x45, 0, 1, 0x02),  # is SYN set?
        (0x06, 0, 0, 0),  # then take nothing of the packet
        (0x06, 0, 0, 0xFFFFFFFF),  # else all of it
    )
)


@contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """As `bind`; closed at the end."""
    found = bind(host, port)
    try:
        yield found
    finally:
        close(found)


def bind(host: str, port: int, *, beside: bool = False) -> list[socket.socket]:
    """A socket for each address of `host`, all on one port; nobody can connect before they listen.

    Port 0 lets the system choose. With `beside` the port may already be bound by sockets that are shared (`share`),
    else it must be free. Raises `SettingsError` when it is not, or when there is no such address.
    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            each = socket.socket(family, socket.SOCK_STREAM)
            bound.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if beside:
                share(each)
            each.bind((address[0], port, *address[2:]))
            port = each.getsockname()[1]
    except OSError as error:
        close(bound)
        raise SettingsError(f"HOST, PORT: cannot listen on {host}:{port}: {error.strerror}") from error
    return bound


def share(listener: socket.socket) -> None:
    """Let others bind the same port: the system deals new connections over all that listen.

    Done after a first socket was bound, it lets in those who come later without hiding those who were there before.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def refuse(listener: socket.socket) -> None:
    """Let nobody new connect, while who is connecting right now still gets through.

    Closing a socket resets the connections that nobody has accepted yet, though their clients may have sent a request.
    After this there will be no more of them, so that it can be closed once those that are left have been accepted. The
    system ignores the others' attempts; they are repeated after a second, and refused then.
    """
    if sys.platform != "linux":
        return
    instructions = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    program = struct.pack("@HP", len(_DROP_SYN) // 8, ctypes.addressof(instructions))
    # A system may keep filters for the privileged, or have none: whoever connects in the last moment may be cut off.
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def close(listeners: Iterable[socket.socket]) -> None:
    """Close them all."""
    for each in listeners:
        each.close()


def announcement(settings: Settings, port: int) -> str:
    """The one line a person sees at the start."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    kept = settings.kato_data if settings.kato_data == ":memory:" else str(Path(settings.kato_data).resolve())
    if settings.kato_store != "embedded":
        kept = f"{settings.kato_store} and redis"
    return f"KATO {release()} listens on http://{host}:{port}, data in {kept}"


def announce(settings: Settings, port: int) -> None:
    """Say it where a person sees it, and nobody who reads what a program answers."""
    print(announcement(settings, port), file=sys.stderr, flush=True)
