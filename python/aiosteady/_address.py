# SPDX-License-Identifier: MIT
"""The client address of a request, as the key of a limit.

Some IPv6 addresses stand for one IPv4 address, and count as that: src/core/address.h lists them."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._core import address_key
from ._policy import Warnings

UNIX_SOCKET = "unix"  # the key of all requests without a peer address

warn = Warnings()


def client_address(trusted_hops: int = 0, ipv6_prefix: int = 64) -> Callable[[Mapping[str, Any]], str]:
    """Returns a key function: the key is the peer address of the connection. For IPv6 it is the network of that
    address, because a customer has a whole network.

    Set `trusted_hops` to the number of your proxies that a request passes. Each proxy must append the address of its
    peer to X-Forwarded-For. By default this header is ignored, because any client can send it. If the header has fewer
    addresses than `trusted_hops`, the request did not pass all proxies; then the key is the peer address.

    The peer of a Unix socket has no address. All requests without an address have the key "unix". Set `trusted_hops` if
    the peer is your proxy.
    """
    check_arguments(trusted_hops, ipv6_prefix)

    def key(scope: Mapping[str, Any]) -> str:
        forwarded = None
        if trusted_hops > 0:
            lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            forwarded = address_key(b",".join(lines), ipv6_prefix, trusted_hops)
        return forwarded or peer_key((scope.get("client") or ("",))[0], trusted_hops, ipv6_prefix)

    return key


def client_address_of_environ(trusted_hops: int = 0, ipv6_prefix: int = 64) -> Callable[[dict[str, Any]], str]:
    """The same for WSGI."""
    check_arguments(trusted_hops, ipv6_prefix)

    def key(environ: dict[str, Any]) -> str:
        forwarded = None
        if trusted_hops > 0:
            forwarded = address_key(environ.get("HTTP_X_FORWARDED_FOR", ""), ipv6_prefix, trusted_hops)
        return forwarded or peer_key(environ.get("REMOTE_ADDR", ""), trusted_hops, ipv6_prefix)

    return key


def check_arguments(trusted_hops: int, ipv6_prefix: int) -> None:
    for name, value, least, most in (("trusted_hops", trusted_hops, 0, 1000), ("ipv6_prefix", ipv6_prefix, 1, 128)):
        if not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}; it must be {least} .. {most}")


def peer_key(peer: str, hops: int, ipv6_prefix: int) -> str:
    if peer:
        return address_key(peer, ipv6_prefix, 0) or peer
    if hops == 0:
        warn("no address", "requests over a Unix socket have no client address, so they all count as one client; if a "
                           "proxy is in front, set trusted_hops of client_address()")
    return UNIX_SOCKET
