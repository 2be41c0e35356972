"""Which host names the service answers to, and which pages may send it changes."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException


def host_refusal(headers: Headers, allowed: frozenset[str], addresses: bool) -> HTTPException | None:
    """Why a request may not name the host it names; None where it may.

    A browser that was led here by a foreign name that resolves to this machine (DNS rebinding) still states that name.

    Args:
        headers: of the request.
        allowed: names beside the loopback ones.
        addresses: whether any IP address will do: no name stands behind one, so nothing can be rebound.
    """
    host = headers.get("host", "")
    name = host_name(host)
    if is_loopback(name) or name in allowed or (addresses and _is_address(name)):
        return None
    if not allowed and not addresses:
        return HTTPException(421, f"this service answers on loopback names only, not on {host[:100]!r}")
    return HTTPException(
        421, f"this service does not answer on {host[:100]!r}: name its hosts in APPORTION_ALLOWED_HOSTS"
    )


def origin_refusal(headers: Headers, by_session: bool) -> HTTPException | None:
    """Why a change may not come from where it comes; None where it may.

    Args:
        headers: of the request.
        by_session: whether a cookie says who sends it: then it must state its origin, as every browser does.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return HTTPException(403, "the request comes from a page of another origin")
    if site is not None and site not in ("same-origin", "none"):
        return HTTPException(403, "the request comes from a page of another site")
    if by_session and origin is None and site is None:
        return HTTPException(403, "the request does not state its origin; programs show a token, not a cookie")
    return None


def host_name(host: str) -> str:
    """The name of a Host header, without the port, in lower case."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether a host name or address means this machine only."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
