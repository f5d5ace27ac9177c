"""The address of a client: that of its connection, or the one in ``X-Forwarded-For`` of a trusted proxy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct

from fllm.errors import ConfigError

UNIX = "unix"
"""The address of every client of a unix socket, and the word that trusts its peer."""
MAX_FORWARDED = 32
"""Addresses of ``X-Forwarded-For`` that are read, from the right. No chain of proxies is as long."""
MAX_ADDRESS_LENGTH = 64
"""Characters of an address with brackets and port; more are not an address."""
CACHED_ADDRESSES = 1024
"""Addresses that are kept as they were parsed, which takes several microseconds."""
CLIENT_PREFIX = 64
"""Bits of an IPv6 address that name a client: a network of this size belongs to one host or site."""

_ENTRY = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+):\d+|([0-9A-Fa-f:.]+)", re.ASCII)
"""``[IPv6]`` with or without a port, IPv4 with a port, or a plain address."""


class TrustedProxies(Struct, frozen=True):
    """The peers whose ``X-Forwarded-For`` names the client.

    Each proxy appends the address of its own peer, so the list is read from the right: everything to the left
    of the first address that is not a trusted proxy was written by the client.
    """

    networks: tuple[IPv6Network, ...] = ()
    unix: bool = False
    """Whether the peer of a unix socket is trusted."""

    @classmethod
    def parse(cls, names: Iterable[str]) -> TrustedProxies:
        """Parse addresses, networks and the word ``unix``. Raise `ConfigError` if one is none of these."""
        distinct = dict.fromkeys(names)
        return cls(tuple(_network(name) for name in distinct if name != UNIX), unix=UNIX in distinct)

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address of the client that sent a request over a connection from ``peer``.

        The result is the peer itself unless it is trusted, else the right-most address of the headers that is
        not. An entry that is not an address ends the search, with the address to its right.
        """
        if not self._trusts(peer):
            return peer
        lines = [value for name, value in headers if name == b"x-forwarded-for"]
        entries = b",".join(lines).decode("latin-1").rsplit(",", MAX_FORWARDED)[-MAX_FORWARDED:]
        for entry in reversed(entries):
            address = _address(entry.strip(" \t"))
            if address is None:
                break
            peer = _text(address)
            if not self._trusts(peer):
                break
        return peer

    def _trusts(self, peer: str) -> bool:
        if peer == UNIX:
            return self.unix
        if not self.networks or (address := _address(peer)) is None:
            return False
        return any(address in network for network in self.networks)


def peer_address(peer: tuple[str, int] | None) -> str:
    """Return the address of a connection's peer; ``unix`` if the connection is not of TCP."""
    if peer is None:
        return UNIX
    address = _address(peer[0].partition("%")[0])  # fe80::1%eth0
    return peer[0] if address is None else _text(address)


@lru_cache(CACHED_ADDRESSES)
def client_name(address: str) -> str:
    """Return the name under which limits and logs count an address: ``ip:`` and it, or its IPv6 network.

    One host can use all addresses of its network.
    """
    parsed = _address(address)
    if parsed is None or parsed.ipv4_mapped or parsed.is_loopback:
        return f"ip:{address}"
    return f"ip:{IPv6Network((parsed, CLIENT_PREFIX), strict=False)}"


@lru_cache(CACHED_ADDRESSES)
def _address(text: str) -> IPv6Address | None:
    """Parse an address; one of IPv4 is mapped to IPv6."""
    match = _ENTRY.fullmatch(text) if len(text) <= MAX_ADDRESS_LENGTH else None
    if match is None:
        return None
    try:
        address = ip_address(match[match.lastindex or 0])
    except ValueError:
        return None
    return address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")


def _text(address: IPv6Address) -> str:
    return str(address.ipv4_mapped or address)


def _network(name: str) -> IPv6Network:
    """Parse an address or a network; one of IPv4 is mapped to IPv6."""
    try:
        network = ip_network(name)
    except ValueError as error:
        raise ConfigError(
            f"--trusted-proxies: {error}; give an address, a network such as 10.0.0.0/8, or {UNIX}"
        ) from error
    if isinstance(network, IPv6Network):
        return network
    return IPv6Network((f"::ffff:{network.network_address}", 96 + network.prefixlen))
