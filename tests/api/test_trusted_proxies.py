"""Whose word counts about the address of a client."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.errors import ConfigError
from fllm_api.trusted_proxies import MAX_FORWARDED, TrustedProxies, client_name, peer_address

PROXIES = TrustedProxies.parse(["10.0.0.0/8", "fd00::/8", "192.0.2.7", "unix"])


def client(*lines: str, peer: str = "10.0.0.1", proxies: TrustedProxies = PROXIES) -> str:
    return proxies.client(peer, [(b"x-forwarded-for", line.encode("latin-1")) for line in lines])


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "203.0.113.9", "192.0.2.8", "unix"])
def test_nobody_is_believed_unless_trusted(peer: str) -> None:
    assert client("198.51.100.1", peer=peer, proxies=TrustedProxies()) == peer
    assert client("198.51.100.1", peer=peer, proxies=TrustedProxies.parse(["192.0.2.7"])) == peer


@pytest.mark.parametrize("peer", ["10.0.0.1", "10.255.255.255", "fd00::1", "192.0.2.7", "unix"])
def test_a_trusted_peer_names_the_client(peer: str) -> None:
    assert client("198.51.100.1", peer=peer) == "198.51.100.1"
    assert client(peer=peer) == peer


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        (["6.6.6.6, 198.51.100.1, 10.1.1.1,192.0.2.7"], "198.51.100.1"),
        (["6.6.6.6", "198.51.100.1", "10.1.1.1"], "198.51.100.1"),
        (["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        (["6.6.6.6, 127.0.0.1"], "127.0.0.1"),
    ],
)
def test_the_right_most_address_that_is_no_proxy_is_the_client(lines: list[str], expected: str) -> None:
    assert client(*lines) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("198.51.100.1:4711", "198.51.100.1"),
        ("\t198.51.100.1 ", "198.51.100.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("[::FFFF:c633:6401]:80", "198.51.100.1"),
    ],
)
def test_an_address_has_one_spelling(entry: str, expected: str) -> None:
    assert client(f"6.6.6.6, {entry}") == expected


GARBAGE = [
    "",
    "unknown",
    "unix",
    "_hidden",
    "localhost",
    "1.2.3",
    "16909060",
    "01.2.3.4",
    "1.2.3.4.5",
    "1.2.3.400",
    "1.2.3.4 5",
    "1.2.3.4:",
    "1.2.3.4:http",
    "[1.2.3.4",
    "2001:db8::1]",
    "[2001:db8::1]x",
    "fe80::1%eth0",
    "fe80::1%\x1b[2K",
    "10.0.0.1 [fake] GET /admin 200",
    "1.2.3.4\x0b",
    "1.2.3.4\x85",
    "\xb9.2.3.4",
    "1" * 65,
    "0:" * 100,
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_ends_the_search_with_the_last_good_address(garbage: str) -> None:
    assert client(f"6.6.6.6, {garbage}") == "10.0.0.1"
    assert client(f"6.6.6.6, {garbage}, 10.2.2.2") == "10.2.2.2"
    assert client(f"{garbage}, 198.51.100.1, 10.2.2.2") == "198.51.100.1"


def test_a_long_list_is_read_from_the_right_up_to_a_limit() -> None:
    assert client(", ".join(["6.6.6.6", *["10.9.9.9"] * MAX_FORWARDED])) == "10.9.9.9"
    assert client(", ".join(["6.6.6.6", *["10.9.9.9"] * (MAX_FORWARDED - 1)])) == "6.6.6.6"
    assert client(", ".join(["6.6.6.6"] * 5000)) == "6.6.6.6"


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=30), max_size=4))
def test_whatever_a_client_sends_the_result_is_an_address(lines: list[str]) -> None:
    address = client(*lines)
    assert str(ip_address(address)) == address


@given(st.lists(st.ip_addresses().map(str), max_size=4), st.lists(st.sampled_from(["10.1.1.1", "192.0.2.7"])))
def test_a_client_cannot_change_what_its_proxy_says(sent: list[str], proxies: list[str]) -> None:
    appended = ["203.0.113.5", *proxies[: MAX_FORWARDED - 1]]
    assert client(", ".join([*sent, *appended])) == "203.0.113.5"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "does not appear to be"),
        ("*", "does not appear to be"),
        ("proxy.example", "does not appear to be"),
        ("10.0.0.1/8", "has host bits set"),
        ("10.0.0.0/33", "does not appear to be"),
    ],
)
def test_what_is_no_address_or_network_is_refused(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"--trusted-proxies: .*{says}.* or unix"):
        TrustedProxies.parse([name])


@pytest.mark.parametrize("network", ["::ffff:192.0.2.0/120", "192.0.2.0/24"])
def test_a_network_of_mapped_addresses_is_one_of_ipv4(network: str) -> None:
    assert client("6.6.6.6", peer="192.0.2.3", proxies=TrustedProxies.parse([network])) == "6.6.6.6"
    assert client("6.6.6.6", peer="192.0.3.3", proxies=TrustedProxies.parse([network])) == "192.0.3.3"


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (("::ffff:10.0.0.1", 5), "10.0.0.1"),
        (("fe80::1%eth0", 5), "fe80::1"),
        (("::1", 5), "::1"),
        (None, "unix"),
    ],
)
def test_the_address_of_a_peer_has_the_same_spelling(peer: tuple[str, int] | None, expected: str) -> None:
    assert peer_address(peer) == expected


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("198.51.100.1", "ip:198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "ip:2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "ip:2001:db8:1:3::/64"),
        ("::1", "ip:::1"),
        ("unix", "ip:unix"),
    ],
)
def test_an_ipv6_client_is_its_network(address: str, name: str) -> None:
    assert client_name(address) == name
