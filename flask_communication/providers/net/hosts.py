"""The guard against requests to private addresses (SSRF, CWE-918), for HTTP, SMTP and IMAP.

Only public servers are connected to, and those of its own network that the operator names. Without
the guard, whoever may enter a provider's address could make this application connect to what only
it can reach: the metadata of its cloud, a database, another customer's machine. What counts is the
address of the connection, not the name that was entered.

The guard is closed by default: a thread that says nothing reaches public addresses only. Each
thread says for itself what else it reaches, by :func:`guarded` or :func:`unguarded`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context, ContextVar
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

# The private hosts that may be reached; None: all of them.
_allowed: ContextVar[tuple[str, ...] | None] = ContextVar("allowed", default=())

SETTING = "COMMUNICATION_ALLOW_PRIVATE_HOSTS"
# IANA's special-purpose registries; `is_global` of the standard library lets some of these pass.
_CLOSED_4 = [ip_network(one) for one in ("192.0.0.0/24", "192.88.99.0/24", "100.64.0.0/10")]
_PUBLIC_6 = IPv6Network("2000::/3")
# Teredo and other protocols, documentation (two), 6to4: a tunnel may lead anywhere.
_CLOSED_6 = [IPv6Network(one) for one in ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16")]
# NAT64 of RFC 6052: the last four bytes are an IPv4 address.
_NAT64 = IPv6Network("64:ff9b::/96")


class Forbidden(OSError):
    """Raised instead of connecting to an address that is not public, before anything is sent."""


def guarded(private: Sequence[str] = ()) -> AbstractContextManager[None]:
    """Connect only to public addresses in this block, and to these hosts.

    ``private`` are names, addresses and networks, each with a port if only that is meant (see
    :func:`split`).
    """
    return _allowing(tuple(private))


def unguarded() -> AbstractContextManager[None]:
    """Connect to any address in this block: for a person who chose the address, and for tests."""
    return _allowing(None)


@contextmanager
def _allowing(allowed: tuple[str, ...] | None) -> Iterator[None]:
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def empty_context() -> Context:
    """Return a context without the caller's variables, in which the caller's guard holds."""
    context = Context()
    context.run(_allowed.set, _allowed.get())
    return context


def check(host: str, port: int, address: str) -> None:
    """Raise :class:`Forbidden` if ``host``, which is at ``address``, must not be connected to."""
    allowed = _allowed.get()
    if allowed is None or is_public(address) or _is_allowed(allowed, host.lower(), port, address):
        return
    raise Forbidden(
        f"{host} is at {address}, which is not public; if it is yours, list it in {SETTING}, or "
        "outside of an application in hosts.guarded(private=[…])"
    )


@functools.lru_cache(maxsize=1024)
def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the internet's, reached by no tunnel."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return _is_public_4(ip) if isinstance(ip, IPv4Address) else _is_public_6(ip)


def _is_public_4(ip: IPv4Address) -> bool:
    closed = ip.is_multicast or ip.is_reserved or any(ip in one for one in _CLOSED_4)
    return ip.is_global and not closed


def _is_public_6(ip: IPv6Address) -> bool:
    if ip.ipv4_mapped is not None:
        return _is_public_4(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_public_4(IPv4Address(int(ip) & 0xFFFFFFFF))
    return ip.scope_id is None and ip in _PUBLIC_6 and not any(ip in one for one in _CLOSED_6)


def _is_allowed(allowed: tuple[str, ...], host: str, port: int, address: str) -> bool:
    return any(_covers(one, host, port, address) for one in allowed)


def _covers(entry: str, host: str, port: int, address: str) -> bool:
    name, named = split(entry)
    if named not in (None, port):
        return False
    if name.rstrip(".") == host.rstrip("."):
        return True
    try:
        # What is written as a number, in whatever way, is at that number.
        return ip_address(address.partition("%")[0]) in ip_network(name)
    except ValueError:
        return False


@functools.lru_cache(maxsize=256)
def split(entry: str) -> tuple[str, int | None]:
    """Return name and port of ``mail.internal:587``, ``10.0.0.0/8`` or ``[::1]:25``.

    Raises ValueError for a port that is none.
    """
    text = entry.lower()
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        return name, _port(rest.removeprefix(":")) if rest else None
    name, colon, rest = text.partition(":")
    if not colon or ":" in rest:
        return text, None
    return name, _port(rest)


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdecimal() else 0
    if not 0 < port < 65536:
        raise ValueError(f"{text!r} is no port")
    return port
