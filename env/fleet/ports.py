"""Chooses free ports from a range."""

from __future__ import annotations

import socket
import threading

from env.fleet.errors import FleetError

_lock = threading.Lock()
_taken: set[int] = set()


def is_free(host: str, port: int) -> bool:
    """Whether a server could bind to the port now (one in TIME_WAIT counts as free, as it does for servers)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def take_port(host: str, ports: tuple[int, int]) -> int:
    """A free port that this process has not given to another server yet; give it back with `release_port`.

    Raises:
        FleetError: none is free.
    """
    first, last = ports
    with _lock:
        for port in range(first, last + 1):
            if port not in _taken and is_free(host, port):
                _taken.add(port)
                return port
    raise FleetError(f"no free port on {host} from {first} to {last}; widen `ports` in the fleet file")


def release_port(port: int) -> None:
    """Let others have a port."""
    with _lock:
        _taken.discard(port)
