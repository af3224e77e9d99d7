"""Aliases: the history of one profile also belongs to another (formal model section 8).

The immediate checks answer 400 or 403; the later ones are silent on the wire and become the
alias's outcome (A9, rulings 19 and 21).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from onymous.rules.errors import AliasInvalid, AliasNotAvailable, Refusal
from onymous.rules.identifiers import MOST_CHARACTERS
from onymous.rules.identity import protects
from onymous.rules.records import ERASED, Record, mask_of
from onymous.rules.strategies import Plan
from onymous.rules.times import AHEAD_MS

DAY_MS = 86_400_000
#: of a device, or all events of the source
SCOPES = ("device", "mpid")


class Alias(msgspec.Struct, kw_only=True):
    """ "History of `source` within [start, end] also belongs to `destination`"."""

    source: int
    destination: int
    start_ms: int
    end_ms: int
    scope: str = "mpid"
    device_stamp: str | None = None
    #: unsigned (web) requests: the source must share the device stamp with the destination
    signed: bool = True


class AliasOutcome(msgspec.Struct, kw_only=True):
    """Applied, or rejected with the reason; a refusal is an immediate error."""

    refusal: type[Refusal] | None = None
    applied: bool = False
    reason: str = ""


def window(start_ms: int | None, end_ms: int | None, now_ms: int, plan: Plan) -> tuple[int, int]:
    """Return the window of an alias: by default from the longest allowed time ago until now.

    It ends with what has happened: what a source will do later is not given away, but for clocks
    that are ahead.
    """
    oldest = now_ms - plan.config.alias_max_window_days * DAY_MS
    end = now_ms if end_ms is None else min(end_ms, now_ms + AHEAD_MS)
    return (oldest if start_ms is None else max(start_ms, 0)), end


def refuse(
    alias: Alias, source: Record | None, destination: Record | None, plan: Plan
) -> type[Refusal] | None:
    """Return the immediate refusal of an alias, or None (202)."""
    if not plan.strategy.alias:
        return AliasNotAvailable
    if alias.source == alias.destination or alias.start_ms > alias.end_ms:
        return AliasInvalid
    if alias.scope not in SCOPES or (alias.scope == "device" and not alias.device_stamp):
        return AliasInvalid
    stamp = alias.device_stamp
    if stamp is not None and ("\0" in stamp or len(stamp) > MOST_CHARACTERS):
        return AliasInvalid  # no device has such a stamp
    for record in (source, destination):
        if record is None or record.flags & ERASED:
            return AliasInvalid
    return None


def decide_alias(
    alias: Alias,
    source: Record,
    destination: Record,
    prior: Sequence[Alias],
    plan: Plan,
    stamp_code: int,
) -> AliasOutcome:
    """Decide an accepted alias against the aliases already applied."""
    for old in prior:
        overlap = old.start_ms <= alias.end_ms and alias.start_ms <= old.end_ms
        if old.source == alias.source and overlap:
            return AliasOutcome(reason="source_already_aliased")
        if old.destination == alias.source:
            return AliasOutcome(reason="source_was_destination")
        if old.source == alias.destination:
            return AliasOutcome(reason="destination_was_source")
    if plan.config.alias_source_must_be_anonymous or not alias.signed:
        if protects(source, mask_of(source), plan):
            return AliasOutcome(reason="source_is_known")
        if not protects(destination, mask_of(destination), plan):
            return AliasOutcome(reason="destination_is_anonymous")
    if not alias.signed and not _share_stamp(alias, source, destination, stamp_code):
        return AliasOutcome(reason="no_shared_device")
    return AliasOutcome(applied=True)


def _share_stamp(alias: Alias, source: Record, destination: Record, code: int) -> bool:
    stamps = set(source.keys_of(code)) & set(destination.keys_of(code))
    return alias.device_stamp in stamps if alias.device_stamp else bool(stamps)
