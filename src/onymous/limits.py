"""Rate limits, client addresses, and the bounds nothing may exceed (rulings 12 and 14).

Counts live in memory, per process, in windows; two generations bound them: what was counted in the
last full generation is still known, so a flood of other keys cannot quickly reset one.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Hashable

import msgspec

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Bounds(msgspec.Struct, frozen=True):
    """Sizes nothing may exceed; each is a setting of the same name."""

    max_identity_body_bytes: int = 262_144
    max_event_body_bytes: int = 2_097_152
    max_identities_per_request: int = 64
    max_identities_per_profile: int = 200


class Verdict(msgspec.Struct, frozen=True):
    """Whether a request may pass; if not, when to come back and what was exceeded."""

    allowed: bool
    retry_after_s: int = 0
    #: a word of the header `X-mp-rate-limit-exceeded`
    exceeded: str = ""


ALLOWED = Verdict(True)


class Trusted(msgspec.Struct, frozen=True):
    """Networks of proxies whose X-Forwarded-For counts."""

    networks: tuple[Network, ...] = ()

    def address(self, peer: str, forwarded: str) -> str:
        """Return the client's address: walking back, the first hop that is no trusted proxy.

        A hop that is no address ends the walk at the proxy that reported it.
        """
        current = plain_address(peer)
        for hop in reversed(forwarded.split(",")):
            if not self._trusts(current):
                return current
            text = _without_port(hop.strip())
            try:
                ipaddress.ip_address(text)
            except ValueError:
                return current
            current = plain_address(text)
        return current

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)


class _Windows:
    """Counts by key in fixed windows, bounded to two generations of `most` keys."""

    def __init__(self, seconds: int, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._new: dict[Hashable, tuple[int, int]] = {}
        self._old: dict[Hashable, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def count(self, key: Hashable, now: float, limit: int) -> int:
        """Count one; return 0 if it fits, else the seconds until it will."""
        start, count = self.get(key, now)
        if count >= limit:
            return max(1, start + self._seconds - int(now))
        if len(self._new) >= self._most:
            self._old, self._new = self._new, {}
        self._new[key] = (start, count + 1)
        return 0

    def get(self, key: Hashable, now: float) -> tuple[int, int]:
        """Return (start of the window, count) of a key."""
        found = self._new.get(key) or self._old.get(key)
        if found is None or int(now) - found[0] >= self._seconds:
            return int(now), 0
        return found


class Limits:
    """The rate limits of a process. A limit of 0 is none."""

    def __init__(
        self,
        *,
        address_per_second: int = 200,
        values_per_hour: int = 2_000,
        value_per_hour: int = 300,
        profiles_per_hour: int = 2_000,
        clock: Callable[[], float] = time.monotonic,
        most_keys: int = 100_000,
    ) -> None:
        self._address_limit, self._values_limit = address_per_second, values_per_hour
        self._value_limit, self._clock = value_per_hour, clock
        self._inputs = _Windows(1, most_keys)
        self._addresses = _Windows(1, most_keys)
        self._values = _Windows(3600, most_keys)
        self._distinct = _Windows(3600, most_keys)
        self._profiles_limit = profiles_per_hour
        self._profiles = _Windows(3600, most_keys)
        #: setting -> how often it was met
        self.exceeded: dict[str, int] = {}
        #: nothing is counted per address or value
        self.off = not (
            address_per_second or values_per_hour or value_per_hour or profiles_per_hour
        )

    @property
    def size(self) -> int:
        """Return how many counts are kept for addresses."""
        return len(self._addresses)

    def input(self, number: int, per_second: int) -> Verdict:
        """Count a request of an input that has a limit."""
        wait = self._inputs.count(number, self._clock(), per_second)
        return self._verdict(wait, "requests_per_second", "app")

    def used(self, number: int, per_second: int) -> int:
        """Return the share of its limit an input has used in this second, in percent."""
        return min(100, self._inputs.get(number, self._clock())[1] * 100 // per_second)

    def address(self, address: str) -> Verdict:
        """Count a key-only request of an address."""
        if not self._address_limit:
            return ALLOWED
        wait = self._addresses.count(grouped(address), self._clock(), self._address_limit)
        return self._verdict(wait, "address_requests_per_second")

    def value(self, address: str, name: str, value: str) -> Verdict:
        """Count a key-only request for a login value.

        Counted per (address, value), so that a stranger cannot lock a person out, and as one of
        the distinct values of the address, so that nobody tries the telephone book.
        """
        now, place = self._clock(), grouped(address)
        key = (place, hash((name, value)))
        if self._values_limit and not self._values.get(key, now)[1]:
            wait = self._distinct.count(place, now, self._values_limit)
            if wait:
                return self._verdict(wait, "address_values_per_hour")
        limit = self._value_limit or 1 << 60
        return self._verdict(self._values.count(key, now, limit), "value_requests_per_hour")

    def may_create(self, address: str) -> Verdict:
        """Whether key-only requests of an address may still make new anonymous records."""
        if not self._profiles_limit:
            return ALLOWED
        now = self._clock()
        start, count = self._profiles.get(grouped(address), now)
        wait = max(1, start + 3600 - int(now)) if count >= self._profiles_limit else 0
        return self._verdict(wait, "address_profiles_per_hour")

    def created(self, address: str) -> None:
        """Count a new anonymous record of an address."""
        if self._profiles_limit:
            self._profiles.count(grouped(address), self._clock(), 1 << 60)

    def _verdict(self, wait: int, setting: str, exceeded: str = "system") -> Verdict:
        if not wait:
            return ALLOWED
        self.exceeded[setting] = self.exceeded.get(setting, 0) + 1
        return Verdict(False, wait, exceeded)


def networks(text: str) -> tuple[Network, ...]:
    """Read networks separated by commas or spaces; raises `ValueError` naming a bad one."""
    return tuple(ipaddress.ip_network(word) for word in text.replace(",", " ").split())


def plain_address(address: str) -> str:
    """Return an IPv4 address that a dual-stack socket wrote as IPv6 the plain way."""
    return address[7:] if address[:7].lower() == "::ffff:" and "." in address else address


def _without_port(hop: str) -> str:
    """Some proxies write the client's port too: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def grouped(address: str) -> str:
    """Return what an address counts as: an IPv6 client owns its whole /64."""
    address = plain_address(address)
    if ":" not in address:
        return address
    try:
        network = ipaddress.ip_network((address.split("%")[0], 64), strict=False)
    except ValueError:
        return address
    return str(network)
