"""Rate limits and bounds."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bounds:
    """Sizes nothing may exceed."""

    max_identity_body_bytes: int = 262_144
    max_event_body_bytes: int = 2_097_152
    max_identities_per_request: int = 64
    max_identities_per_profile: int = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may pass."""

    allowed: bool
    retry_after_s: int = 0
    exceeded: str = ""
    percent_used: int = 0


ALLOWED = Verdict(True)


@dataclass(slots=True)
class Trusted:
    """Networks whose X-Forwarded-For counts."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def address(self, peer: str, forwarded: str) -> str:
        """Return the client's address: the last hop no trusted proxy named."""
        hops = [h.strip() for h in forwarded.split(",")][::-1]
        current = peer
        for hop in hops:
            try:
                inside = any(ipaddress.ip_address(current) in n for n in self.networks)
                if not inside:
                    return current
                ipaddress.ip_address(hop)
            except ValueError:
                return current
            current = hop
        return current


@dataclass(slots=True)
class Limits:
    """Sliding windows in memory, bounded."""

    address_per_second: int = 200
    values_per_hour: int = 2000
    value_per_hour: int = 300
    _counts: dict[tuple[object, ...], tuple[int, int]] = field(default_factory=dict)

    def _count(self, key: tuple[object, ...], window_s: int, most: int, name: str) -> Verdict:
        now = int(time.monotonic())
        start, count = self._counts.get(key, (now, 0))
        if now - start >= window_s:
            start, count = now, 0
        if most and count >= most:
            return Verdict(False, max(1, start + window_s - now), name, 100)
        if len(self._counts) > 200_000:
            self._counts.clear()
        self._counts[key] = (start, count + 1)
        return ALLOWED

    def input(self, input_id: int, per_second: int) -> Verdict:
        """Count a request of an input."""
        return self._count(("i", input_id), 1, per_second, "app")

    def address(self, address: str) -> Verdict:
        """Count a key-only request of an address."""
        return self._count(("a", address), 1, self.address_per_second, "system")

    def value(self, address: str, name: str, value: str) -> Verdict:
        """Count a key-only request for a login value."""
        return self._count(("v", address, hash((name, value))), 3600, self.value_per_hour, "system")
