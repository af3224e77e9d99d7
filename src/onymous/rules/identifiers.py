"""Identity types with all their spellings, and the one cleaning pipeline for every entrance."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping

import msgspec
import phonenumbers

from onymous.rules.errors import IdentityValueInvalid, IdentityValueNotString, UnknownIdentityType


class IdentityType(msgspec.Struct, frozen=True, kw_only=True):
    """One identity type. `code` is stored in the database and never changes."""

    code: int
    #: Identity API spelling
    name: str
    klass: str
    events: str
    sdk_code: int | None = None
    default_rank: int | None = None
    guid: bool = False


_USER = (
    "customerid email mobile_number phone_number_2 phone_number_3 other other2 other3 other4"
    " other5 other6 other7 other8 other9 other10 facebook google twitter microsoft yahoo"
    " facebookcustomaudienceid alias"
).split()
_DEVICE = (
    "ios_idfa ios_idfv android_aaid android_uuid fire_aid roku_aid roku_publisher_id"
    " microsoft_publisher_id microsoft_aid amp_id push_token device_application_stamp"
).split()
DEFAULT_PRIORITY: tuple[str, ...] = tuple(
    "customerid mobile_number email other facebook google twitter microsoft yahoo ios_idfa"
    " ios_idfv android_aaid android_uuid roku_aid roku_publisher_id microsoft_publisher_id"
    " microsoft_aid device_application_stamp".split()
)
_GUID = {"ios_idfa", "android_aaid", "fire_aid", "roku_aid", "microsoft_aid"}
TYPES = tuple(
    [IdentityType(code=n + 1, name=x, klass="user", events=x) for n, x in enumerate(_USER)]
    + [
        IdentityType(code=n + 40, name=x, klass="device", events=x, guid=x in _GUID)
        for n, x in enumerate(_DEVICE)
    ]
)
BY_NAME = {t.name: t for t in TYPES}
BY_CODE = {t.code: t for t in TYPES}
FOLDED = dict(BY_NAME)
FOLDED["customer_id"] = BY_NAME["customerid"]


class Folding(msgspec.Struct, frozen=True):
    """Which values are folded before they are compared."""

    email_lower: bool = False
    phone_e164: bool = False
    phone_region: str | None = None


class Skipped(msgspec.Struct, frozen=True):
    """An identity left out by the pipeline; never its value."""

    type: str
    why: str


class Cleaned(msgspec.Struct):
    """Identities after the pipeline."""

    keys: dict[str, str]
    spelling: dict[str, str]
    skipped: tuple[Skipped, ...] = ()


_PLACEHOLDERS = {"null", "undefined", "none", "nan", "(null)", "n/a"}


def _one(kind: IdentityType, value: str, folding: Folding) -> tuple[str | None, str]:
    text = value.strip()
    if not text:
        return None, "empty"
    if text.lower() in _PLACEHOLDERS:
        return None, "placeholder"
    if not text.strip("0-") and (kind.klass == "device" or len(text) > 30):
        return None, "zero_guid"
    if text.startswith("00000000-0000-4000-8000-"):
        return None, "placeholder"
    if len(text) > 256:
        return None, "too_long"
    if kind.guid:
        return text.lower(), ""
    if kind.name == "email" and folding.email_lower:
        return text.lower(), ""
    return text, ""


def clean_value(kind: IdentityType, value: str, folding: Folding) -> str | None:
    """Clean one value."""
    if "\0" in value:
        raise IdentityValueInvalid(type=kind.name)
    return _one(kind, value, folding)[0]


def clean(
    given: Mapping[str, object],
    *,
    strict: bool,
    folding: Folding = Folding(),
    blocked: Container[tuple[str, str]] = (),
) -> Cleaned:
    """Clean identities."""
    keys: dict[str, str] = {}
    spelling: dict[str, str] = {}
    skipped: list[Skipped] = []
    for name, value in given.items():
        kind = (BY_NAME if strict else FOLDED).get(name)
        if kind is None:
            if strict:
                raise UnknownIdentityType(type=name)
            skipped.append(Skipped(name[:40], "unknown_type"))
            continue
        if value is None:
            continue
        if not isinstance(value, str):
            if strict:
                raise IdentityValueNotString(type=name)
            value = str(value)
        if "\0" in value:
            raise IdentityValueInvalid(type=name)
        key, why = _one(kind, value, folding)
        if key is None:
            skipped.append(Skipped(kind.name, why))
        elif (kind.name, key) in blocked:
            skipped.append(Skipped(kind.name, "blocked"))
        else:
            keys[kind.name] = key
            text = value.strip()
            if text != key:
                spelling[kind.name] = text
    return Cleaned(keys, spelling, tuple(skipped))
