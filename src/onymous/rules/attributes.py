"""User attributes: their names, their values, their limits."""

from __future__ import annotations

import functools

#: most attributes of one person and workspace, and of one batch
MOST_ATTRIBUTES = 100
MOST_NAME, MOST_VALUE = 256, 4096
MOST_ITEMS, MOST_ITEM = 1000, 512
#: longer names are not remembered
_SHORT = 64

#: reserved names in the order people read them, without `$`
RESERVED = (
    "age",
    "firstname",
    "lastname",
    "gender",
    "mobile",
    "address",
    "city",
    "state",
    "zip",
    "country",
)
_RESERVED = {f"${name}": name for name in RESERVED}


def attribute_name(given: object) -> str | None:
    """Return an attribute's name, or None for one that cannot be used.

    Names are case-sensitive, except the reserved `$` names, which have one spelling here.
    """
    if not isinstance(given, str):
        return None
    name = given.strip()
    if not name or len(name) > MOST_NAME or not usable_text(name):
        return None
    folded = name.lower()
    return folded if folded in _RESERVED else name


_short_name = functools.lru_cache(4096)(attribute_name)


def known_name(given: str) -> str | None:
    """Return what `attribute_name` does: the names of attributes are few, and mostly short."""
    return _short_name(given) if len(given) <= _SHORT else attribute_name(given)


def attribute_value(given: object) -> tuple[str | list[str] | None, str]:
    """Return a value as stored, and why it cannot be (empty: it can). None is a tag."""
    if type(given) is str and len(given) <= MOST_VALUE and given.isprintable():
        return given, ""
    if given is None:
        return None, ""
    if isinstance(given, list):
        if len(given) > MOST_ITEMS:
            return None, "attribute_list_too_long"
        items = [_scalar(item) for item in given]
        texts = [item for item in items if item is not None]
        if len(texts) < len(items) or any(len(t) > MOST_ITEM for t in texts):
            return None, "attribute_value_unusable"
        return texts, ""
    text = _scalar(given)
    if text is None:
        return None, "attribute_value_unusable"
    return (text, "") if len(text) <= MOST_VALUE else (None, "attribute_value_too_long")


def usable_text(text: str) -> bool:
    """Return whether text can be stored on every engine: no NUL, no lone surrogates."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _scalar(given: object) -> str | None:
    """Return a scalar as text: numbers as JSON writes them, truth values in lower case."""
    if isinstance(given, str):
        return given if usable_text(given) else None
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int):
        return str(given) if given.bit_length() <= 4096 else None
    if isinstance(given, float) and given == given and abs(given) != float("inf"):
        return repr(given)
    return None


def in_order(names: list[str]) -> list[str]:
    """Return names as people read them: reserved ones first, the others by the alphabet."""
    place = {f"${name}": n for n, name in enumerate(RESERVED)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))
