"""Rate limits and client addresses."""

from __future__ import annotations

import ipaddress

import pytest

from onymous.limits import Limits, Trusted

TRUSTED = Trusted((ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("127.0.0.1/32")))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),
        ("127.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("127.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        ("127.0.0.1", "6.6.6.6, 1.1.1.1, 10.1.2.3", "1.1.1.1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "1.1.1.1, nonsense", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("", "1.1.1.1", ""),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str, forwarded: str, address: str) -> None:
    assert TRUSTED.address(peer, forwarded) == address


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_is_limited_by_the_second() -> None:
    clock = Clock()
    limits = Limits(address_per_second=3, clock=clock)
    assert [limits.address("a").allowed for _ in range(5)] == [True] * 3 + [False] * 2
    assert limits.address("b").allowed
    verdict = limits.address("a")
    assert (verdict.retry_after_s, verdict.exceeded) == (1, "system")
    clock.now += 1
    assert limits.address("a").allowed


def test_a_value_is_limited_per_address_so_that_nobody_is_locked_out() -> None:
    limits = Limits(value_per_hour=2, clock=Clock())
    assert [limits.value("a", "email", "v").allowed for _ in range(3)] == [True, True, False]
    assert limits.value("b", "email", "v").allowed
    assert limits.value("a", "email", "w").allowed


def test_distinct_login_values_of_an_address_are_limited() -> None:
    clock = Clock()
    limits = Limits(values_per_hour=3, clock=clock)
    assert [limits.value("a", "email", str(n)).allowed for n in range(5)] == [True] * 3 + [
        False
    ] * 2
    assert limits.value("a", "email", "1").allowed
    assert limits.value("b", "email", "9").allowed
    clock.now += 3601
    assert limits.value("a", "email", "9").allowed


def test_ipv6_neighbours_count_as_one() -> None:
    limits = Limits(address_per_second=2, clock=Clock())
    assert limits.address("2001:db8::1").allowed
    assert limits.address("2001:db8::2").allowed
    assert not limits.address("2001:db8::3").allowed
    assert limits.address("2001:db8:0:1::1").allowed


def test_zero_is_no_limit() -> None:
    limits = Limits(address_per_second=0, value_per_hour=0, values_per_hour=0, clock=Clock())
    assert all(limits.address("a").allowed for _ in range(1000))
    assert all(limits.value("a", "email", str(n)).allowed for n in range(1000))


def test_memory_is_bounded_and_a_flood_does_not_reset_a_bucket() -> None:
    limits = Limits(address_per_second=2, clock=Clock(), most_keys=1000)
    limits.address("bad")
    limits.address("bad")
    for n in range(900):
        limits.address(f"10.{n // 250}.{n % 250}.1")
    assert not limits.address("bad").allowed
    for n in range(50_000):
        limits.address(f"172.{n // 62500}.{n // 250 % 250}.{n % 250}")
    assert limits.size <= 2 * 1000
