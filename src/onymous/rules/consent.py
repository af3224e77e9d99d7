"""Consent as batches state it: regulation, purpose, yes or no, when, and the evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from onymous.rules.times import read_time

CCPA_PURPOSE = "data_sale_opt_out"
REGULATIONS = ("gdpr", "ccpa")
MOST_PURPOSES = 100
#: most characters of a purpose's name
MOST_PURPOSE = 256
_MOST_TEXT = 1024


class Consent(msgspec.Struct, array_like=True):
    """One answer of a person. CCPA: `consented` means opted out of sale."""

    consented: bool
    at_ms: int
    document: str | None = None
    location: str | None = None
    hardware_id: str | None = None


class Stated(msgspec.Struct, array_like=True):
    """A consent as a batch states it; purposes are compared in lower case."""

    regulation: str
    purpose: str
    consent: Consent


def read_consent(given: object, now_ms: int, note: Callable[[str], None]) -> list[Stated]:
    """Read a `consent_state`; what is incomplete is left out and noted."""
    out: list[Stated] = []
    if given is None:
        return out
    if not isinstance(given, dict):
        note("consent_unusable")
        return out
    for regulation in REGULATIONS:
        purposes = given.get(regulation)
        if purposes is None:
            continue
        if not isinstance(purposes, dict) or len(purposes) > MOST_PURPOSES:
            note("consent_unusable")
            continue
        for name, facts in purposes.items():
            stated = _one(regulation, str(name), facts, now_ms)
            if stated is None:
                note("consent_unusable")
            else:
                out.append(stated)
    return out


def _one(regulation: str, name: str, facts: Any, now_ms: int) -> Stated | None:
    purpose = name.strip().lower()
    if not isinstance(facts, dict) or not isinstance(facts.get("consented"), bool):
        return None
    if not purpose or len(purpose) > MOST_PURPOSE:
        return None
    if regulation == "ccpa" and purpose != CCPA_PURPOSE:
        return None
    stated = read_time(facts.get("timestamp_unixtime_ms")) or now_ms
    texts = [facts.get(k) for k in ("document", "location", "hardware_id")]
    document, location, hardware = (
        t[:_MOST_TEXT] if isinstance(t, str) and t else None for t in texts
    )
    # a time ahead of ours would win against every later answer
    return Stated(
        regulation,
        purpose,
        Consent(facts["consented"], min(stated, now_ms), document, location, hardware),
    )


def newer(regulation: str, new: Consent, old: Consent | None) -> bool:
    """Return whether a stated consent replaces the stored one: the newest answer does, and of two
    answers of the same time the one that allows less.
    """
    if old is None or new.at_ms > old.at_ms:
        return True
    refuses = new.consented if regulation == "ccpa" else not new.consented
    return new.at_ms == old.at_ms and new.consented != old.consented and refuses
