"""Plain data of the auditor: configuration, records, expectations and cleaned identities.

Independent of the product's rules on purpose: two models that agree are worth more than one.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field, fields
from typing import Any

NEW = "NEW"
"""Label of a record that the request creates; replaced by the real MPID on commit."""

USER_TYPES = frozenset(
    [
        "customerid",
        "email",
        "mobile_number",
        "phone_number_2",
        "phone_number_3",
        "other",
        "facebook",
        "google",
        "twitter",
        "microsoft",
        "yahoo",
        "facebookcustomaudienceid",
        "alias",
    ]
    + [f"other{n}" for n in range(2, 11)]
)
"""Identity types that belong to a person."""

DEVICE_TYPES = frozenset(
    [
        "ios_idfa",
        "ios_idfv",
        "android_aaid",
        "android_uuid",
        "fire_aid",
        "roku_aid",
        "roku_publisher_id",
        "microsoft_publisher_id",
        "microsoft_aid",
        "amp_id",
        "push_token",
        "device_application_stamp",
    ]
)
"""Identity types that belong to a device or an installation."""

_ADVERTISING = frozenset(["ios_idfa", "android_aaid", "fire_aid", "roku_aid", "microsoft_aid"])
_JUNK = frozenset(["null", "undefined", "none", "nan", "(null)", "n/a"])
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ZERO = "00000000-0000-0000-0000-000000000000"

Identities = dict[str, str]


class Refused(Exception):
    """The request is refused; carries the HTTP status and the error code."""

    def __init__(self, status: int, code: str | None) -> None:
        """Remember the status and the code (None: the answer has no code)."""
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass
class Config:
    """One scope's identity configuration, with the named options of the rulings."""

    strategy: str = "default"
    priority: list[str] = field(default_factory=list)
    login: list[str] = field(default_factory=list)
    unique: list[str] = field(default_factory=list)
    immutable: list[str] = field(default_factory=list)
    search_requires_immutable: bool = False
    sticky_known: bool = True
    alias_source_must_be_anonymous: bool = True
    login_conflict: str = "new_record"
    identify_may_replace: bool = False
    fold_email: bool = False
    fold_phone: bool = False
    hot_after: int = 100

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Config:
        """Read the fields this class knows; anything else is a TypeError."""
        known = {f.name for f in fields(cls)}
        extra = set(data) - known
        if extra:
            raise TypeError(f"unknown configuration fields: {sorted(extra)}")
        return cls(**copy.deepcopy(data))


@dataclass
class Record:
    """One identity record: values by type, in the order in which they came."""

    mpid: str
    ids: dict[str, list[str]] = field(default_factory=dict)
    last_seen: int = 0
    created: int = 0
    source: str | None = None
    was_known: bool = False
    erased: bool = False

    def copied(self) -> Record:
        """Return a record of its own with the same content."""
        ids = {kind: list(values) for kind, values in self.ids.items()}
        return Record(
            self.mpid,
            ids,
            self.last_seen,
            self.created,
            self.source,
            self.was_known,
            self.erased,
        )


@dataclass
class Expected:
    """What must happen: the answer's fields and every record afterwards."""

    status: int
    code: str | None = None
    mpid: str | None = None
    is_logged_in: bool | None = None
    is_ephemeral: bool | None = None
    matched_identities: Identities | None = None
    change_results: list[dict[str, str]] | None = None
    outcome: str | None = None
    matches: list[str] | None = None
    records: list[Record] = field(default_factory=list)
    aliases: list[dict[str, Any]] = field(default_factory=list)


def key(config: Config, kind: str, value: str) -> str:
    """Give the form in which two values of a type are compared."""
    if kind in _ADVERTISING and _GUID.fullmatch(value):
        return value.lower()
    if kind == "email" and config.fold_email:
        return value.lower()
    return value


def clean_value(value: object) -> str | None:
    """Clean one value: None is absent; a non-string raises Refused 400."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refused(400, "VALIDATION_ERROR")
    text = value.strip()
    if not text or text.lower() in _JUNK or text == _ZERO or len(text) > 256:
        return None
    return text


def clean(raw: dict[str, Any]) -> Identities:
    """Clean a request's identities; an unknown type raises Refused 400."""
    result: Identities = {}
    for kind, value in raw.items():
        if kind not in USER_TYPES | DEVICE_TYPES:
            raise Refused(400, "VALIDATION_ERROR")
        text = clean_value(value)
        if text is not None:
            result[kind] = text
    return result
