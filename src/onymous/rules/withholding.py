"""What a batch says but must not be kept: decided by its input and by the device's own switches.

Identities taken out here are neither resolved, nor attached, nor stored with the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onymous.rules.devices import truth
from onymous.rules.identity_types import FOLDED, GUIDS

#: every spelling of an advertising id in any part of a batch
_ADVERTISING = frozenset(name for name, kind in FOLDED.items() if kind.name in GUIDS)
_APPLE = frozenset(name for name, kind in FOLDED.items() if kind.name == "ios_idfa")
#: the person has allowed tracking
_ALLOWED = "authorized"
#: what only the server says of a batch, and keys of old clients
_NOT_THEIRS = ("source_info", "api_key", "api_keys")


def withheld(
    raw: Mapping[str, Any], *, keep_ip: bool, restrict: bool
) -> tuple[Mapping[str, Any], list[str]]:
    """Return the batch without what must not be kept, and what was taken out.

    `keep_ip`: the address of the device is kept. `restrict`: no advertising ids of devices that
    limit ad tracking. Apple's id is never taken where its prompt was not answered with yes.
    The batch itself is left as it is.
    """
    notes: list[str] = []
    names = _unwanted(raw.get("device_info"), restrict)
    address = not keep_ip and raw.get("ip") is not None
    if not names and not address and raw.keys().isdisjoint(_NOT_THEIRS):
        return raw, notes
    out = {name: value for name, value in raw.items() if name not in _NOT_THEIRS}
    if address:
        del out["ip"]
        notes.append("ip_withheld")
    if names:
        taken = [_without(out, field, names) for field in ("device_info", "user_identities")]
        if any(taken):
            notes.append("advertising_id_withheld")
    return (out if len(out) < len(raw) or notes else raw), notes


def _unwanted(info: object, restrict: bool) -> frozenset[str]:
    if not isinstance(info, dict):
        return frozenset()
    if restrict and truth(info.get("limit_ad_tracking")) is True:
        return _ADVERTISING
    status = info.get("att_authorization_status")
    if isinstance(status, str) and status.strip().lower() not in ("", _ALLOWED):
        return _APPLE
    return frozenset()


def _without(out: dict[str, Any], field: str, names: frozenset[str]) -> bool:
    """Replace one part of a batch by a copy without some identities; return whether it had any."""
    given = out.get(field)
    if isinstance(given, dict):
        out[field] = {key: value for key, value in given.items() if key not in names}
    elif isinstance(given, list):
        out[field] = [item for item in given if not _names(item, names)]
    else:
        return False
    return len(out[field]) < len(given)


def _names(item: object, names: frozenset[str]) -> bool:
    return isinstance(item, dict) and item.get("identity_type") in names
