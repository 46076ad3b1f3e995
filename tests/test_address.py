# SPDX-License-Identifier: MIT
"""The keys of client addresses, compared with Python's ipaddress on random addresses and random texts."""
import importlib
import ipaddress
import random
import sys

import pytest


@pytest.fixture(scope="module")
def address_key(aiosteady):
    sys.path.insert(0, str(aiosteady))
    return importlib.import_module("aiosteady._core").address_key


IPV4_AT_THE_END = [ipaddress.IPv6Network(text) for text in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")]


def ipv4_in(address):
    if address in ipaddress.IPv6Network("::/112"):
        return None
    if any(address in network for network in IPV4_AT_THE_END):
        return ipaddress.IPv4Address(address.packed[12:])
    return address.teredo[1] if address.teredo else address.sixtofour


def expected(text, prefix):
    host = text.partition("%")[0]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    inner = address if address.version == 4 else ipv4_in(address)
    if inner is not None:
        return str(inner)
    if address in ipaddress.IPv6Network("64:ff9b:1::/48"):
        prefix = 128
    return str(ipaddress.IPv6Network((address, prefix), strict=False))


HEADS = [b"", bytes(10) + b"\xff\xff", bytes(8) + b"\xff\xff\0\0", bytes.fromhex("0064ff9b"), bytes.fromhex("0064ff9b0001"),
         b"\x20\x02", b"\x20\x01\0\0", bytes(12), bytes(14), bytes(6), bytes.fromhex("20010db8")]


def some_address(chance):
    """Some bytes are 0, so that the text has "::" at various places."""
    if chance.random() < 0.2:
        return str(ipaddress.IPv4Address(chance.getrandbits(32)))
    tail = bytes(chance.choice((0, 0, chance.getrandbits(8))) for _ in range(16))
    head = chance.choice(HEADS)
    address = ipaddress.IPv6Address(head + tail[len(head):])
    return chance.choice((str(address), address.exploded, address.exploded.upper(), f"[{address}]:443", f"{address}%eth0"))


def test_random_addresses_have_the_keys_that_ipaddress_gives(address_key):
    chance = random.Random(1)
    seen = set()
    for _ in range(5000):
        text, prefix = some_address(chance), chance.choice((64, chance.randint(1, 128)))
        key = address_key(text, prefix, 0)
        assert key == expected(text, prefix), (text, prefix)
        seen.add(key)
    assert len(seen) > 2500


def test_random_texts_are_addresses_where_ipaddress_says_so(address_key):
    chance = random.Random(2)
    addresses = 0
    for _ in range(20000):
        text = "".join(chance.choice("0123:..:f[]% ") for _ in range(chance.randint(0, 12)))
        if chance.random() < 0.5:  # an address with one change
            text = list(some_address(chance))
            text[chance.randrange(len(text))] = chance.choice(":.0g/ ")
            text = "".join(text)
        key = address_key(text, 64, 0)
        assert key == expected(text, 64), text
        addresses += key is not None
    assert 1000 < addresses < 19000


@pytest.mark.parametrize("hops, field, key", [
    (1, b"203.0.113.9\xff, 198.51.100.7", "198.51.100.7"), (2, "203.0.113.9\xff, 198.51.100.7", None),
    (2, "198.51.100.7, \udc80", None), (1, "", None), (3, b"198.51.100.7,203.0.113.9", None),
    (2, b" 2001:db8::1 ,203.0.113.9", "2001:db8::/64")])
def test_a_forwarded_address_is_found_in_any_bytes(address_key, hops, field, key):
    assert address_key(field, 64, hops) == key


@pytest.mark.parametrize(("arguments", "error"), [
    (("::1", 0, 0), ValueError), (("::1", 129, 0), ValueError), ((5, 64, 0), TypeError)], ids=["0", "129", "int"])
def test_a_wrong_argument_is_refused(address_key, arguments, error):
    with pytest.raises(error):
        address_key(*arguments)
