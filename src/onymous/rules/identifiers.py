"""The one cleaning pipeline for every entrance, or erasure will miss data.

Identity API, events, feeds, files, privacy requests and console search all clean values here:
trim, drop placeholders and all-zero ids, bound the length, fold what the scope folds. Comparison
afterwards is exact (rulings 4 and 5).
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import msgspec
import phonenumbers

from onymous.rules.errors import IdentityValueInvalid, IdentityValueNotString, UnknownIdentityType
from onymous.rules.identity_types import (
    BY_CODE,
    BY_NAME,
    BY_SDK_CODE,
    DEFAULT_PRIORITY,
    FOLDED,
    TYPES,
    IdentityType,
)

__all__ = [
    "BY_CODE",
    "BY_NAME",
    "BY_SDK_CODE",
    "DEFAULT_PRIORITY",
    "FOLDED",
    "TYPES",
    "Cleaned",
    "Folding",
    "IdentityType",
    "Skipped",
    "clean",
    "clean_value",
]

#: most characters of a value; longer ones are dropped
MOST_CHARACTERS = 256
PLACEHOLDERS = frozenset({"null", "undefined", "none", "nan", "(null)", "n/a"})
_LONGEST_PLACEHOLDER = max(map(len, PLACEHOLDERS))
#: SDKs without a device send this prefix with the number of their input
_NO_DEVICE = "00000000-0000-4000-8000-"
_PHONES = frozenset({"mobile_number", "phone_number_2", "phone_number_3"})


class Folding(msgspec.Struct, frozen=True):
    """Which values are folded before they are compared; chosen per scope before data exists."""

    email_lower: bool = False
    phone_e164: bool = False
    #: two-letter region for numbers without a country code
    phone_region: str | None = None


class Skipped(msgspec.Struct, frozen=True):
    """An identity left out by the pipeline, and why; never its value."""

    type: str
    why: str


class Cleaned(msgspec.Struct):
    """Identities after the pipeline."""

    #: type name -> comparison key
    keys: dict[str, str]
    #: type name -> received spelling, only where it differs from the key
    spelling: dict[str, str]
    skipped: tuple[Skipped, ...] = ()


NO_FOLDING = Folding()


def clean(
    given: Mapping[str, object],
    *,
    strict: bool,
    folding: Folding = NO_FOLDING,
    blocked: Container[tuple[str, str]] = (),
) -> Cleaned:
    """Clean the identities of one person.

    `strict` knows only Identity API names and raises `UnknownIdentityType`,
    `IdentityValueNotString` or `IdentityValueInvalid`; otherwise every spelling is folded, numbers
    are taken as text, and what cannot be used is skipped with the reason. Of two spellings of a
    type the Identity API's own wins, else the first.
    """
    keys: dict[str, str] = {}
    spelling: dict[str, str] = {}
    skipped: list[Skipped] = []
    for name, value in given.items():
        kind = (BY_NAME if strict else FOLDED).get(name)
        if kind is None:
            if strict:
                raise UnknownIdentityType(type=name)
            skipped.append(Skipped("unknown", "unknown_type"))
            continue
        if value is None:
            continue
        text, why = _text(kind, value, strict)
        key: str | None = None
        if text is not None:
            key, why = _one(kind, text, folding)
        if key is None:
            skipped.append(Skipped(kind.name, why))
        elif blocked and (kind.name, key) in blocked:
            skipped.append(Skipped(kind.name, "blocked"))
        elif kind.name not in keys or name == kind.name:
            keys[kind.name] = key
            spelling.pop(kind.name, None)
            if text != key and text is not None:
                spelling[kind.name] = text
    return Cleaned(keys, spelling, tuple(skipped))


def clean_value(kind: IdentityType, value: str, folding: Folding) -> str | None:
    """Return the comparison key of one value, or None where it is no identity.

    Raises `IdentityValueInvalid` for text with NUL or lone surrogates.
    """
    text, _ = _text(kind, value, True)
    return None if text is None else _one(kind, text, folding)[0]


def _text(kind: IdentityType, value: object, strict: bool) -> tuple[str | None, str]:
    """Return a value as trimmed, valid text, or why it is none."""
    if isinstance(value, str):
        text = value.strip()
    elif strict:
        raise IdentityValueNotString(type=kind.name)
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int | float):
        text = str(value)
    else:
        return None, "not_text"
    lone = not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)
    if lone or "\0" in text:
        if strict:
            raise IdentityValueInvalid(type=kind.name)
        return None, "invalid"
    return text, ""


def _one(kind: IdentityType, text: str, folding: Folding) -> tuple[str | None, str]:
    """Return the comparison key of trimmed text, or why there is none."""
    size = len(text)
    if not size:
        return None, "empty"
    if size > MOST_CHARACTERS:
        return None, "too_long"
    if size <= _LONGEST_PLACEHOLDER and text.lower() in PLACEHOLDERS:
        return None, "placeholder"
    if text[0] in "0-" and (why := _zero(kind, text)):
        return None, why
    if kind.guid:
        return text.lower(), ""
    if folding.email_lower and kind.name == "email":
        return text.lower(), ""
    if folding.phone_e164 and kind.name in _PHONES:
        return _e164(text, folding.phone_region), ""
    return text, ""


def _zero(kind: IdentityType, text: str) -> str:
    """Tell all-zero ids: limited ad tracking gives everybody the same one.

    A person's id may be "0"; an all-zero GUID is nobody's.
    """
    if text.lower().startswith(_NO_DEVICE):
        return "placeholder"
    bare = text.replace("-", "")
    if not bare.strip("0") and (kind.klass == "device" or len(bare) == 32):
        return "zero_guid"
    return ""


def _e164(text: str, region: str | None) -> str:
    """Return a phone number in E.164, or the text itself where it is no possible number."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return text
    if not phonenumbers.is_possible_number(number) or number.extension:
        return text
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
