"""Where nothing is ever sent: the house's own network, under whatever name or notation it hides."""

from __future__ import annotations

import socket

import pytest

from app.errors import InvalidInput, ProviderUnavailable
from app.integrations import targets
from app.integrations.targets import TargetNotAllowed, find_addresses, is_public, read_url


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "0.0.0.0"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
        *("224.0.0.1", "224.0.1.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.9"),
        *("::", "::1", "::7f00:1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:a00:1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe"),
        *("64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1", "100::1", "4000::1", "nonsense"),
    ],
)
def test_an_address_of_a_network_of_ones_own_is_refused_in_every_notation(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_an_address_of_the_internet_is_not(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "localhost.",
        "[::1]",
        "[::ffff:7f00:1]",
    ],
)
def test_a_name_or_number_that_leads_here_is_refused_wherever_it_is_looked_up(host):
    target = read_url(f"https://{host}:8443/x", plain_allowed=False)
    with pytest.raises((TargetNotAllowed, ProviderUnavailable)):
        find_addresses(target, private_allowed=False, seconds=3)


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch):
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in ("93.184.216.34", "10.0.0.7")]
    monkeypatch.setattr(targets.socket, "getaddrinfo", lambda *_, **__: answers)
    target = read_url("https://two.example/x", plain_allowed=False)
    with pytest.raises(TargetNotAllowed):
        find_addresses(target, private_allowed=False, seconds=3)
    assert find_addresses(target, private_allowed=True, seconds=3) == ["93.184.216.34", "10.0.0.7"]


def test_a_look_up_that_nobody_answers_ends_in_time(monkeypatch):
    import threading

    held = threading.Event()
    monkeypatch.setattr(targets.socket, "getaddrinfo", lambda *_, **__: held.wait(5) and [])
    with pytest.raises(ProviderUnavailable) as failed:
        find_addresses(read_url("https://slow.example", plain_allowed=False), private_allowed=True, seconds=0.1)
    held.set()
    assert failed.value.maybe_done is False


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://hooks.example/x",
            "ftp://hooks.example",
            "https://",
            "https:///x",
            "//hooks.example",
            "hooks.example",
        ),
        *("https://user@hooks.example/", "https://user:word@hooks.example/", "https://hooks.example/#part"),
        *("https://hooks.example:0/", "https://hooks.example:99999/", "https://[::1", "https://[fe80::1%25eth0]/"),
        *(
            "https://hooks.example/a b",
            "https://hooks.example/\r\nHost: x",
            "https://höoks.example/",
            "https://x/" + "a" * 2000,
        ),
    ],
)
def test_what_is_no_plain_https_url_is_refused_and_not_repeated(url):
    with pytest.raises(InvalidInput) as refused:
        read_url(url, plain_allowed=False)
    assert "hooks" not in str(refused.value)


def test_a_url_is_taken_apart_as_it_is_sent():
    target = read_url("https://Hooks.Example:8443/in?a=%20b", plain_allowed=False)
    assert (target.host, target.port, target.path, target.authority) == (
        *("hooks.example", 8443, "/in?a=%20b"),
        "hooks.example:8443",
    )
    assert read_url("http://[2606:4700::1111]", plain_allowed=True).authority == "[2606:4700::1111]"
