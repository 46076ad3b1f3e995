# SPDX-License-Identifier: MIT
"""The client address of a request, as the key of a limit.

Some IPv6 addresses stand for one IPv4 address, and many of them share a /64. They count as that IPv4 address:

    ::ffff:0:0/96       IPv4-mapped (RFC 4291, 2.5.5.2)
    ::/96               IPv4-compatible (RFC 4291, 2.5.5.1), except ::/112, which has :: and ::1
    ::ffff:0:0:0/96     IPv4-translated (RFC 2765, 2.1)
    64:ff9b::/96        behind a translator, such as NAT64 or SIIT-DC (RFC 6052, 2.1)
    2002::/16           6to4: the site of one IPv4 address (RFC 3056, 2)
    2001::/32           Teredo: the host behind one IPv4 address (RFC 4380, 4)

In 64:ff9b:1::/48 (RFC 8215) the operator chooses the position of the IPv4 address, so each address there counts alone.
An ISATAP address (RFC 5214) needs no rule: its /64 belongs to one site."""
from __future__ import annotations

import ipaddress
from collections.abc import Callable, MutableMapping
from typing import Any

from ._policy import Warnings

UNIX_SOCKET = "unix"  # the key of all requests without a peer address

warn = Warnings()


def client_address(trusted_hops: int = 0, ipv6_prefix: int = 64) -> Callable[[MutableMapping[str, Any]], str]:
    """Returns a key function: the key is the peer address of the connection. For IPv6 it is the network of that
    address, because a customer has a whole network.

    Set `trusted_hops` to the number of your proxies that a request passes. Each proxy must append the address of its
    peer to X-Forwarded-For. By default this header is ignored, because any client can send it. If the header has fewer
    addresses than `trusted_hops`, the request did not pass all proxies; then the key is the peer address.

    The peer of a Unix socket has no address. All requests without an address have the key "unix". Set `trusted_hops` if
    the peer is your proxy.
    """
    check_arguments(trusted_hops, ipv6_prefix)

    def key(scope: MutableMapping[str, Any]) -> str:
        forwarded = None
        if trusted_hops > 0:
            lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            forwarded = network_of(forwarded_for(b",".join(lines).decode("latin-1"), trusted_hops), ipv6_prefix)
        return forwarded or peer_key((scope.get("client") or ("",))[0], trusted_hops, ipv6_prefix)

    return key


def client_address_of_environ(trusted_hops: int = 0, ipv6_prefix: int = 64) -> Callable[[dict[str, Any]], str]:
    """The same for WSGI."""
    check_arguments(trusted_hops, ipv6_prefix)

    def key(environ: dict[str, Any]) -> str:
        forwarded = None
        if trusted_hops > 0:
            forwarded = network_of(forwarded_for(environ.get("HTTP_X_FORWARDED_FOR", ""), trusted_hops), ipv6_prefix)
        return forwarded or peer_key(environ.get("REMOTE_ADDR", ""), trusted_hops, ipv6_prefix)

    return key


def check_arguments(trusted_hops: int, ipv6_prefix: int) -> None:
    for name, value, least, most in (("trusted_hops", trusted_hops, 0, 1000), ("ipv6_prefix", ipv6_prefix, 1, 128)):
        if not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}; it must be {least} .. {most}")


def forwarded_for(header: str, hops: int) -> str:
    """The address of the peer of the outermost trusted proxy; empty if the request did not pass all trusted proxies."""
    addresses = header.split(",")
    return addresses[-hops].strip() if len(addresses) >= hops else ""


def peer_key(peer: str, hops: int, ipv6_prefix: int) -> str:
    if peer:
        return network_of(peer, ipv6_prefix) or str(peer)
    if hops == 0:
        warn("no address", "requests over a Unix socket have no client address, so they all count as one client; if a "
                           "proxy is in front, set trusted_hops of client_address()")
    return UNIX_SOCKET


IPV4_AT_THE_END = [ipaddress.IPv6Network(text) for text in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")]
UNSPECIFIED_AND_LOOPBACK = ipaddress.IPv6Network("::/112")
TRANSLATED_LOCALLY = ipaddress.IPv6Network("64:ff9b:1::/48")


def ipv4_in(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address for which this IPv6 address stands, or None."""
    if address in UNSPECIFIED_AND_LOOPBACK:
        return None
    if any(address in network for network in IPV4_AT_THE_END):
        return ipaddress.IPv4Address(address.packed[12:])
    if address.teredo is not None:
        return address.teredo[1]
    return address.sixtofour


def network_of(text: str, ipv6_prefix: int) -> str | None:
    """The network of an address such as "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80". None if the
    text is no address."""
    host = text.partition("%")[0]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    inner = ipv4_in(address)
    if inner is not None:
        return str(inner)
    if address in TRANSLATED_LOCALLY:
        ipv6_prefix = 128
    return str(ipaddress.IPv6Network((address, ipv6_prefix), strict=False))
