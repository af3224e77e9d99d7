"""The device of a batch, and what of it is worth showing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from onymous.rules.errors import InvalidData
from onymous.rules.identifiers import FOLDED, is_junk

#: fields of `device_info` that are identities, in any spelling
IDENTITY_FIELDS = frozenset(name for name, kind in FOLDED.items() if kind.klass != "user")
_HARDWARE = "brand product device device_manufacturer device_model device_name cpu_architecture"
_SCREEN = "screen_height screen_width screen_dpi is_tablet has_nfc supports_telephony"
_SYSTEM = "platform os_version build_identifier build_version_release http_header_user_agent"
_PLACE = "device_country locale_language locale_country timezone_offset timezone_name is_dst"
_NET = "network_country network_carrier network_code network_mobile_country_code"
_RADIO = "radio_access_technology bluetooth_enabled bluetooth_version"
_PUSH = "push_notification_sound_enabled push_notification_vibrate_enabled"
_CONSENT = "limit_ad_tracking att_authorization_status att_timestamp_unixtime_ms"
#: what a profile keeps of a device; anything else stays in the batch
SHOWN = IDENTITY_FIELDS | frozenset(
    " ".join((_HARDWARE, _SCREEN, _SYSTEM, _PLACE, _NET, _RADIO, _PUSH, _CONSENT)).split()
)
MOST_TEXT, MOST_STAMP, MOST_PLATFORM = 512, 256, 32
_YES, _NO = ("true", "1"), ("false", "0")


class Device(msgspec.Struct):
    """The one device a batch came from."""

    stamp: str | None
    platform: str
    info: dict[str, str]
    limit_ad_tracking: bool | None = None
    #: push token registered (text) or removed (empty) by this batch
    push: str | None = None


def read_device(raw: Mapping[str, Any], platform: str) -> Device | None:
    """Read the device of a batch; `platform` is what its input stands for.

    Raises `InvalidData` for a `device_info` that is no object.
    """
    info = raw.get("device_info")
    if info is not None and not isinstance(info, dict):
        raise InvalidData(what="device_info must be an object")
    stamp = raw.get("mp_deviceid")
    if not isinstance(stamp, str) or len(stamp) > MOST_STAMP or is_junk(stamp):
        stamp = None
    if not info and stamp is None:
        return None
    info = info or {}
    named = info.get("platform")
    return Device(
        stamp,
        # it is counted by, and stands in a column of its own: a name, not any text
        named[:MOST_PLATFORM].lower()
        if isinstance(named, str) and named and named.isprintable()
        else platform,
        _facts(info),
        truth(info.get("limit_ad_tracking")),
    )


def _facts(info: Mapping[str, Any]) -> dict[str, str]:
    """Return what is worth showing of a device: short scalars; no ids that are nobody's."""
    facts: dict[str, str] = {}
    for key, value in info.items():
        if key not in SHOWN:
            continue
        if not isinstance(value, str):
            if isinstance(value, bool):
                value = "true" if value else "false"
            elif isinstance(value, int) or isinstance(value, float):  # noqa: SIM101
                value = str(value)
            else:
                continue
        if 0 < len(value) <= MOST_TEXT and (key not in IDENTITY_FIELDS or not is_junk(value)):
            facts[key] = value
    return facts


def truth(given: object) -> bool | None:
    """Return a truth value, in any of the ways clients write one; None for anything else."""
    if given is None or isinstance(given, bool):
        return given
    word = str(given).strip().lower() if isinstance(given, int | str) else ""
    return True if word in _YES else False if word in _NO else None
