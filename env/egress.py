"""Which servers a spec or a webhook may make this process talk to; names are resolved, and what was reached is checked.

Without this, whoever may submit a study could have the service fetch from the network behind it (SSRF): a router's
page, a cloud's metadata, another service on loopback. What the operator configured himself (the fleet, the agent's
LLM of the environment) is not asked about.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import httpx

from env.errors import BackendError

Kind = Literal["public", "private", "loopback", "never"]
"""What an address is: `never` are link-local ones, metadata services, multicast and reserved ranges."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ALLOWED_SETTING = "APPORTION_ALLOWED_TARGETS"
KEYS_SETTING = "APPORTION_SPEC_KEYS"

_METADATA: frozenset[Address] = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")
)
"""Where clouds tell a machine its credentials; not all of them in a range that says so."""

_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""Networks whose addresses end in the IPv4 address that they lead to."""


class EgressError(BackendError):
    """A server may not be asked; the message says what allows it."""


@dataclass(frozen=True)
class Egress:
    """What may be reached beside public addresses.

    The default is what the operator's own commands go by; `strict` is for specs that others send.
    """

    loopback: bool = True
    private: bool = True
    names: frozenset[str] = frozenset()
    """Host names that may be reached wherever they lead, ``.example.org`` for all below it."""

    networks: tuple[Network, ...] = ()
    keys: frozenset[str] | None = None
    """Environment variables whose values a spec may have sent as keys, as ``NAME`` or ``NAME@host``; None: any."""

    @classmethod
    def strict(cls, allowed: Iterable[str] = (), loopback: bool = False, keys: Iterable[str] | None = ()) -> Egress:
        """The policy for what others send.

        Args:
            allowed: host names, IP addresses or networks beside the public addresses.
            loopback: whether this machine's own servers may be asked.
            keys: variables that specs may name, see `keys`; None: any.

        Raises:
            ValueError: an entry that begins like an address is none.
        """
        names, networks = set[str](), list[Network]()
        for entry in allowed:
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if "/" in entry or ":" in entry or not entry:
                    raise ValueError(f"{entry!r} is no host name, IP address or network such as 10.0.0.0/8") from None
                names.add(entry.lower())
        return cls(loopback, False, frozenset(names), tuple(networks), None if keys is None else frozenset(keys))

    def checked_url(self, url: str) -> str:
        """The same URL, where it may be asked as far as can be said now; names are resolved.

        A name that does not resolve passes: nothing can be reached by it, and it is checked again when it is used.

        Raises:
            EgressError: why it may not.
        """
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            raise EgressError("this is no URL") from None
        if parts.scheme not in ("http", "https") or not host:
            raise EgressError("the URL must start with http:// or https:// and name a host")
        if parts.username is not None or parts.password is not None:
            raise EgressError("the URL holds a user name or password; keys come from environment variables")
        self.check_host(host, port or (443 if parts.scheme == "https" else 80))
        return url

    def check_host(self, host: str, port: int) -> tuple[str, ...]:
        """Resolve a host and check every address it has; blocks while it is looked up.

        Returns:
            The addresses; none where the name does not resolve.

        Raises:
            EgressError: the host may not be reached.
        """
        try:
            found = socket.getaddrinfo(host.rstrip("."), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return ()
        addresses = tuple(dict.fromkeys(str(item[4][0]) for item in found))
        for address in addresses:
            self.check_address(host, address)
        return addresses

    def check_address(self, host: str, address: str) -> None:
        """Check one address, where a host's name led to.

        Raises:
            EgressError: it may not be reached.
        """
        if self._named(host):
            return
        parsed = ipaddress.ip_address(address.partition("%")[0])
        if any(parsed in network for network in self.networks):
            return
        kind = kind_of(parsed)
        if kind == "public" or (kind == "private" and self.private) or (kind == "loopback" and self.loopback):
            return
        words = {"never": "a link-local, metadata or reserved", "private": "a private", "loopback": "a loopback"}
        raise EgressError(
            f"{host} is at {words[kind]} address, which specs may not name here; the operator can allow it "
            f"in {ALLOWED_SETTING}"
        )

    def check_key(self, variable: str, url: str | None) -> None:
        """Check that a variable's value may be sent as a key to a server.

        Raises:
            EgressError: it may not: else whoever sends a spec could have any secret of the service sent anywhere.
        """
        if self.keys is None or variable in self.keys:
            return
        host = (urlsplit(url).hostname or "") if url else ""
        if host and f"{variable}@{host}".lower() in {entry.lower() for entry in self.keys}:
            return
        raise EgressError(
            f"specs may not send the value of {variable} there; the operator can allow it in {KEYS_SETTING}, "
            f"as {variable} or {variable}@{host or 'host'}"
        )

    def _named(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return name in self.names or any(name.endswith(entry) for entry in self.names if entry.startswith("."))


OPERATOR = Egress()
"""What the operator's own commands go by: everything but link-local, metadata and reserved addresses."""

_current = OPERATOR


def current() -> Egress:
    """The policy of this process."""
    return _current


def obey(policy: Egress) -> None:
    """Let this process go by a policy from now on."""
    global _current
    _current = policy


@contextmanager
def obeying(policy: Egress) -> Iterator[None]:
    """Go by a policy in the block; for the whole process, not for one thread."""
    before = _current
    obey(policy)
    try:
        yield
    finally:
        obey(before)


def checked_url(url: str) -> str:
    """See `Egress.checked_url`, by the policy of this process.

    Raises:
        EgressError: the URL may not be asked.
    """
    return current().checked_url(url)


def kind_of(address: Address) -> Kind:
    """What an address is; of one that carries an IPv4 address inside, what that one is."""
    inner = _embedded(address)
    if inner is not None:
        return kind_of(inner)
    if address in _METADATA or address.is_link_local or address.is_multicast:
        return "never"
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if isinstance(address, ipaddress.IPv4Address) and (address.is_reserved or address in _THIS_NETWORK):
        return "never"
    if address.is_global and not getattr(address, "is_site_local", False):
        return "public"
    return "private"


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to by mapping or translation."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback or address.is_unspecified:
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


class GuardedTransport(httpx.HTTPTransport):
    """A transport for httpx whose every request, redirected ones too, goes to an address that was checked.

    The name is resolved here and the connection is made to that very address, so that a name that leads elsewhere a
    moment later (DNS rebinding) changes nothing; certificates are still checked against the name.
    """

    def __init__(self, policy: Egress | None = None) -> None:
        """Go by a policy; by that of the process where None, as it is at each request."""
        super().__init__()
        self._policy = policy

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            EgressError: its host may not be reached.
            httpx.TransportError: it cannot be.
        """
        policy = self._policy or current()
        with _pinned(request, _address(policy, request)):
            return super().handle_request(request)


class AsyncGuardedTransport(httpx.AsyncHTTPTransport):
    """`GuardedTransport` for asynchronous clients; names are looked up on threads."""

    def __init__(self, policy: Egress | None = None) -> None:
        """Go by a policy; by that of the process where None, as it is at each request."""
        super().__init__()
        self._policy = policy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            EgressError: its host may not be reached.
            httpx.TransportError: it cannot be.
        """
        policy = self._policy or current()
        with _pinned(request, await asyncio.to_thread(_address, policy, request)):
            return await super().handle_async_request(request)


def _address(policy: Egress, request: httpx.Request) -> str:
    """The checked address to send a request to."""
    url = request.url
    policy.checked_url(str(url.copy_with(username=None, password=None)))
    addresses = policy.check_host(url.host, url.port or (443 if url.scheme == "https" else 80))
    if not addresses:
        raise httpx.ConnectError(f"the name {url.host} does not resolve", request=request)
    return addresses[0]


@contextmanager
def _pinned(request: httpx.Request, address: str) -> Iterator[None]:
    """Have a request sent to an address; its Host header and the name its certificate is for stay."""
    url = request.url
    request.extensions = {**request.extensions, "sni_hostname": url.host}
    request.url = url.copy_with(host=address)
    try:
        yield
    finally:
        request.url = url
