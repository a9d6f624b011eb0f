"""Where the server listens. Nothing heavy is imported here."""

from __future__ import annotations

import errno
import ipaddress
import socket

from ovseg.errors import UserError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_of_host(error: Exception) -> bool:
    """Whether the name means no address, or not one of this machine."""
    if isinstance(error, socket.gaierror):
        return error.errno != socket.EAI_SERVICE
    return isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for visitors.

    Raises:
        UserError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host {host} --port {port} cannot be used ({reason}); give another "
            f"{'--host' if _is_of_host(error) else '--port'}"
        ) from error


def address(listening: socket.socket) -> str:
    """Where visitors find a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
