"""The one cleaning pipeline for every entrance, or erasure will miss data.

Identity API, events, feeds, files, privacy requests and console search all clean values here:
trim, drop placeholders and all-zero ids, bound the length, fold what the scope folds. Comparison
afterwards is exact (rulings 4 and 5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING

import msgspec

from onymous.later import module
from onymous.rules.errors import IdentityValueInvalid, IdentityValueNotString, UnknownIdentityType
from onymous.rules.identity_types import (
    BY_CODE,
    BY_NAME,
    BY_SDK_CODE,
    DEFAULT_PRIORITY,
    FOLDED,
    TYPES,
    IdentityType,
    type_of,
)

if TYPE_CHECKING:
    import phonenumbers
else:
    phonenumbers = module("phonenumbers")

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
    "is_junk",
    "ordinary",
    "type_of",
]

#: most characters of a value; longer ones are dropped
MOST_CHARACTERS = 256
PLACEHOLDERS = frozenset({"null", "undefined", "none", "nan", "(null)", "n/a"})
_LONGEST_PLACEHOLDER = max(map(len, PLACEHOLDERS))
#: SDKs without a device send this prefix with the number of their input
_NO_DEVICE = "00000000-0000-4000-8000-"
_BARE_NO_DEVICE = _NO_DEVICE.replace("-", "")
_PHONES = frozenset({"mobile_number", "phone_number_2", "phone_number_3"})
_CODES = {kind.name: kind.code for kind in TYPES}
_SURROGATE = re.compile("[\ud800-\udfff]")
#: text that needs no second look: ASCII, nothing to trim, longer than any placeholder, not too
#: long, and not beginning like a zero id
_ORDINARY = re.compile("[!-,./1-z|}~][ -~]{8,254}[!-~]").fullmatch
#: type name -> code, and whether its values are folded always (1), where e-mails are (2), or need a
#: second look (3)
_QUICK = {
    kind.name: (
        kind.code,
        3 if kind.name in _PHONES else 1 if kind.guid else 2 * (kind.name == "email"),
    )
    for kind in TYPES
}
#: from here on a float no longer tells neighbouring whole numbers apart
_INEXACT = 2.0**53
#: a whole number of more bits has more than MOST_CHARACTERS digits
_MOST_BITS = 860

#: tells whether a (type name, comparison key) is on the block list
Blocked = Callable[[str, str], bool] | Container[tuple[str, str]]


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
    blocked: Blocked = (),
) -> Cleaned:
    """Clean the identities of one person; the answer is in type order, whatever came first.

    `strict` knows only Identity API names and raises `UnknownIdentityType`,
    `IdentityValueNotString` or `IdentityValueInvalid`; otherwise every spelling is folded, numbers
    are taken as text, and what cannot be used is skipped with the reason. Of several spellings
    the Identity API's own wins, else the first in the alphabet. None is absent, not skipped.
    """
    if not strict:
        plain = _plain(given, folding, blocked)
        if plain is not None:
            return plain
    return _clean(given, strict, folding, blocked)


def _clean(
    given: Mapping[str, object], strict: bool, folding: Folding, blocked: Blocked
) -> Cleaned:
    keys: dict[str, str] = {}
    spelling: dict[str, str] = {}
    skipped: list[Skipped] = []
    known, last, in_order = (BY_NAME if strict else FOLDED), 0, True
    for name, value in given.items() if strict else sorted(given.items(), key=_place):
        kind = known.get(name)
        if kind is None:
            skipped.append(_unknown(name, strict))
            continue
        if value is None:
            continue
        in_order, last = in_order and last <= kind.code, kind.code
        key, text, why = _key(kind, value, strict, folding)
        if key is None or text is None:
            skipped.append(Skipped(kind.name, why))
        elif blocked and _is_blocked(kind.name, key, blocked):
            skipped.append(Skipped(kind.name, "blocked"))
        elif kind.name not in keys:
            keys[kind.name] = key
            if text != key:
                spelling[kind.name] = text
        elif keys[kind.name] != key:
            skipped.append(Skipped(kind.name, "other_spelling"))
    cleaned = Cleaned(keys, spelling, tuple(skipped))
    return cleaned if in_order else _in_type_order(cleaned)


def _plain(given: Mapping[str, object], folding: Folding, blocked: Blocked) -> Cleaned | None:
    """Return the cleaned identities where no value needs a second look and no type comes twice.

    What `clean` says of the same identities, not strictly, at a fraction of the cost; else None.
    """
    keys: dict[str, str] = {}
    spelling: dict[str, str] = {}
    last, in_order, fold = 0, True, folding.email_lower
    for given_name, value in given.items():
        kind = FOLDED.get(given_name)
        if kind is None:
            return None
        if value is None:
            continue
        name, code = kind.name, kind.code
        if type(value) is not str or not _ORDINARY(value) or name in keys or name in _PHONES:
            return None
        in_order, last = in_order and last < code, code
        key = value.lower() if kind.guid or (fold and name == "email") else value
        if blocked and _is_blocked(name, key, blocked):
            return None
        keys[name] = key
        if key != value:
            spelling[name] = value
    cleaned = Cleaned(keys, spelling)
    return cleaned if in_order else _in_type_order(cleaned)


def ordinary(
    given: Mapping[str, object], folding: Folding, blocked: Container[tuple[str, str]]
) -> dict[int, str] | None:
    """Return type code -> comparison key where no value needs a second look, else None.

    What `clean` says of the same identities, strictly, at a fraction of the cost; in type order.
    """
    keys: dict[int, str] = {}
    last, in_order, fold = 0, True, folding.email_lower
    for name, value in given.items():
        quick = _QUICK.get(name)
        if quick is None:
            return None
        if value is None:
            continue
        if not isinstance(value, str) or not _ORDINARY(value):
            return None
        code, how = quick
        if code < last:
            in_order = False
        last = code
        if how:
            if how == 3:
                return None
            if how == 1 or fold:
                value = value.lower()
        if blocked and (name, value) in blocked:
            return None
        keys[code] = value
    return keys if in_order else dict(sorted(keys.items()))


def _key(
    kind: IdentityType, value: object, strict: bool, folding: Folding
) -> tuple[str | None, str | None, str]:
    """Return the comparison key and the trimmed text of a value, or why there is none."""
    if isinstance(value, str) and _ORDINARY(value) and kind.name not in _PHONES:
        lower = kind.guid or (folding.email_lower and kind.name == "email")
        return (value.lower() if lower else value), value, ""
    text, why = _text(kind, value, strict)
    if text is None:
        return None, None, why
    key, why = _one(kind, text, folding)
    return key, text, why


def _unknown(name: str, strict: bool) -> Skipped:
    """Refuse an unknown type, or skip it without its name: that may be somebody's value."""
    if strict:
        raise UnknownIdentityType(type=name)
    return Skipped("unknown", "unknown_type")


def _place(item: tuple[str, object]) -> tuple[int, bool, str]:
    """Return where an identity stands: type order, canonical spelling first, unknown last."""
    kind = FOLDED.get(item[0])
    return (99, True, item[0]) if kind is None else (kind.code, item[0] != kind.name, item[0])


def _in_type_order(cleaned: Cleaned) -> Cleaned:
    """Return the same identities in type order; strict ones only, all of known types."""
    keys = {name: cleaned.keys[name] for name in sorted(cleaned.keys, key=_CODES.__getitem__)}
    shown, skipped = cleaned.spelling, cleaned.skipped
    if len(shown) > 1:
        shown = {name: shown[name] for name in keys if name in shown}
    if len(skipped) > 1:
        skipped = tuple(sorted(skipped, key=lambda s: _CODES[s.type]))
    return Cleaned(keys, shown, skipped)


def _is_blocked(name: str, key: str, blocked: Blocked) -> bool:
    """Ask a block list, given as a function or as a container of pairs."""
    return blocked(name, key) if callable(blocked) else (name, key) in blocked


def clean_value(kind: IdentityType, value: str, folding: Folding) -> str | None:
    """Return the comparison key of one value, or None where it is no identity.

    Raises `IdentityValueInvalid` for text with NUL or lone surrogates.
    """
    text, _ = _text(kind, value, True)
    return None if text is None else _one(kind, text, folding)[0]


def is_junk(text: str) -> bool:
    """Return whether the value of a device id is nobody's: empty, all zero, a placeholder."""
    if _ORDINARY(text):
        return False
    text = text.strip()
    if not text.isprintable() and ("\0" in text or _SURROGATE.search(text)):
        return True
    return _one(BY_NAME["device_application_stamp"], text, NO_FOLDING)[0] is None


def _text(kind: IdentityType, value: object, strict: bool) -> tuple[str | None, str]:
    """Return a value as trimmed, valid text, or why it is none."""
    if isinstance(value, str):
        text = value.strip()
    elif strict:
        raise IdentityValueNotString(type=kind.name)
    else:
        return _number(value)
    # NUL and surrogates are not printable, so that nearly every value is done with one look
    if not text.isprintable() and ("\0" in text or _SURROGATE.search(text)):
        if strict:
            raise IdentityValueInvalid(type=kind.name)
        return None, "invalid"
    return text, ""


def _number(value: object) -> tuple[str | None, str]:
    """Return a number or a truth value as text, exactly, or why it is none.

    A float that large has already lost digits: two people's numbers may have become one.
    """
    if isinstance(value, bool):
        return ("true" if value else "false"), ""
    if isinstance(value, int):
        # the interpreter refuses to write out numbers of thousands of digits
        return (None, "too_long") if value.bit_length() > _MOST_BITS else (str(value), "")
    if isinstance(value, float):
        return (repr(value), "") if abs(value) < _INEXACT else (None, "inexact_number")
    return None, "not_text"


def _one(kind: IdentityType, text: str, folding: Folding) -> tuple[str | None, str]:
    """Return the comparison key of trimmed text, or why there is none."""
    size = len(text)
    if not size:
        return None, "empty"
    if size > MOST_CHARACTERS:
        return None, "too_long"
    if size <= _LONGEST_PLACEHOLDER and text.lower() in PLACEHOLDERS:
        return None, "placeholder"
    if text[0] in "0-{" and (why := _zero(kind, text)):
        return None, why
    if kind.guid:
        return (text.lower() if text.isascii() else text), ""
    if folding.email_lower and kind.name == "email":
        return (text.lower() if text.isascii() else _case_pairs(text)), ""
    if folding.phone_e164 and kind.name in _PHONES:
        return _phone(text, folding.phone_region), ""
    return text, ""


def _case_pairs(text: str) -> str:
    """Return text in lower case, letter by letter, only where the way back is the same letter.

    `str.lower` and `str.casefold` also join what are different mailboxes: the Kelvin sign with k,
    long s with s, sharp s with ss, dotted I with i. Who registers such a look-alike must not
    become the person with the plain address. Here only the two cases of one letter are joined,
    so nothing changes its length and folding twice changes nothing.
    """
    return "".join(low if (low := c.lower()).upper() == c else c for c in text)


def _zero(kind: IdentityType, text: str) -> str:
    """Tell all-zero ids: limited ad tracking gives everybody the same one.

    A person's id may be "0"; an all-zero GUID, with or without dashes or braces, is nobody's.
    """
    if text.startswith(_NO_DEVICE):
        return "placeholder"
    digits = text.strip("{}").replace("-", "")
    if len(digits) == 32 and digits.startswith(_BARE_NO_DEVICE):
        return "placeholder"
    if not digits.strip("0") and (kind.klass == "device" or len(digits) == 32):
        return "zero_guid"
    return ""


def _phone(text: str, region: str | None) -> str:
    """Return a phone number in E.164, or the text itself where that is not certain.

    Kept as received: what is no possible number, an extension (several people share the number
    before it), and the rare number whose E.164 form reads as yet another number.
    """
    number = _e164(text, region)
    if number is None or number == text:
        return text
    return number if _e164(number, region) == number else text


def _e164(text: str, region: str | None) -> str | None:
    """Return the E.164 form of a possible phone number without extension, else None."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    possible = phonenumbers.is_possible_number_with_reason(number)
    if number.extension or possible != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
