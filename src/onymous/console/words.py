"""How pages write times, money and types of identities."""

from __future__ import annotations

import datetime
import re

from onymous.rules.identity_types import BY_NAME


def when(ms: int) -> str:
    """Return a time as people read it, in UTC."""
    if not ms:
        return "never"
    return _utc(ms).strftime("%Y-%m-%d %H:%M:%S")


def day(ms: int) -> str:
    """Return the day of a time in UTC."""
    return _utc(ms).strftime("%Y-%m-%d") if ms else "never"


def _utc(ms: int) -> datetime.datetime:
    most = 253_402_300_799_000
    return datetime.datetime.fromtimestamp(min(max(ms, 0), most) / 1000, datetime.UTC)


def label(name: str) -> str:
    """Return the name of an identity type for people."""
    return BY_NAME[name].label if name in BY_NAME else name


def labelled(text: str) -> str:
    """Return a sentence of the API with the names of identity types as people know them."""
    # "other" is a type, and a word
    return re.sub(r"\b(?!other\b)[a-z_]+", lambda found: label(found[0]), text)


def money(millionths: int) -> str:
    """Return millionths of a currency unit with two decimals."""
    return f"{millionths / 1_000_000:,.2f}"
