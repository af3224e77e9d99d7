"""Personal values stay masked until someone reveals them."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from onymous.rules.masking import mask

_ADDRESS = re.compile(r"[\w.+'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
#: seven digits or more, as phones and cards are written; a date is none
_NUMBER = re.compile(r"(?<!\d)(?!\d{4}-\d\d-\d\d\b)\+?\d(?:[ ()/.-]?\d){6,30}")
#: text of a batch that says what happened, not to whom: shown as it is
_PLAIN = frozenset(
    {
        "event_type",
        "event_name",
        "custom_event_type",
        "screen_name",
        "platform",
        "environment",
        "action",
        "currency_code",
        "application_transition_type",
        "identity_type",
        "user_attribute_name",
        "sdk_version",
        "os",
        "os_version",
        "device_manufacturer",
        "device_model",
        "brand",
        "locale_language",
        "locale_country",
        "application_version",
        "name",
        "category",
        "variant",
        "sku",
    }
)
#: below these, everything may be personal, numbers too
_PERSONAL = frozenset(
    {
        "user_attributes",
        "user_identities",
        "identities",
        "ip",
        "location",
        "mpid",
        "custom_attributes",
        "custom_flags",
        "new",
        "old",
        "application_info",
    }
)
#: keys that may stand below those and still say nothing of a person
_KINDS = frozenset({"identity_type", "user_attribute_name"})


def scrubbed(text: str) -> str:
    """Return a name of an event without what looks like an address or a long number in it."""
    text = _ADDRESS.sub(lambda found: mask(found[0]), text)
    return _NUMBER.sub(lambda found: mask(found[0]), text)


def masked_json(value: Any, key: str = "", personal: bool = False) -> Any:
    """Return a copy of a batch in which only what says nothing of a person is left readable."""
    personal = personal or key in _PERSONAL
    if isinstance(value, dict):
        return {k: masked_json(v, k, personal) for k, v in value.items()}
    if isinstance(value, list):
        return [masked_json(v, key, personal) for v in value]
    if isinstance(value, str):
        plain = key in _KINDS or (key in _PLAIN and not personal)
        return scrubbed(value) if plain or not value else mask(value)
    if personal and isinstance(value, int | float) and not isinstance(value, bool):
        return "****"
    return value


class Handles:
    """Names values without showing them: a handle means a value only on this server."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32, person=b"onymous handles").digest()

    def of(self, person: str, kind: str, value: str) -> str:
        """Return the handle of a value of a person; `kind` keeps types apart."""
        text = "\0".join((person, kind, value)).encode("utf-8", "replace")
        return hashlib.blake2b(text, digest_size=9, key=self._key).hexdigest()
