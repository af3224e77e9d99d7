"""Random configurations and histories over few people and few values, so that they collide."""

from __future__ import annotations

import random
from typing import Any

#: short ones are looked at twice, long ones may be answered at a glance
VALUES = {
    "customerid": ["c0", *(f"customer-{n}" for n in range(1, 4))],
    "email": ["e0@x.io", *(f"mail{n}@example.org" for n in range(1, 4))],
    "mobile_number": ["+4100", "+4101"],
    "other": ["o0", "other-name-1"],
    "ios_idfv": ["d0", "device-of-1", "device-of-2"],
    "device_application_stamp": ["s0", "stamp-number-1", "stamp-number-2"],
}
USER = ("customerid", "email", "mobile_number", "other")
DEVICE = ("ios_idfv", "device_application_stamp")
STRATEGIES = ("default", "profile_conversion", "profile_link", "profile_isolation", "best_match")
#: how often each operation comes
OPERATIONS = {
    "identify": 30,
    "login": 16,
    "logout": 8,
    "search": 8,
    "modify": 12,
    "events": 10,
    "feed": 6,
    "alias": 5,
    "erase": 2,
}

Op = dict[str, Any]


def configuration(rng: random.Random) -> dict[str, Any]:
    """Return a configuration that the checks accept."""
    strategy = rng.choice(STRATEGIES)
    login: list[str] = []
    if strategy == "default":
        login = ["customerid"]
    elif strategy != "best_match":
        login = rng.choice([["customerid"], ["customerid", "email"], ["email"]])
    unique = list(login)
    if strategy not in ("default", "best_match") and rng.random() < 0.3:
        unique.append("other")
    immutable: list[str] = []
    if login and rng.random() < 0.25:
        immutable = [login[0]]
    users = [t for t in USER if t not in login]
    rng.shuffle(users)
    ranked = login + users[: rng.randrange(len(users) + 1)]
    ranked += [d for d in DEVICE if rng.random() < 0.8]
    if not ranked:
        ranked = ["customerid"]
    return {
        "strategy": strategy,
        "priority": ranked,
        "login": login,
        "unique": unique,
        "immutable": immutable,
        "search_requires_immutable": bool(immutable) and rng.random() < 0.5,
        "sticky_known": rng.random() < 0.8,
        "alias_source_must_be_anonymous": rng.random() < 0.8,
        "login_conflict": "return_match" if rng.random() < 0.2 else "new_record",
        "identify_may_replace": rng.random() < 0.2,
        "hot_after": rng.choice([2, 3, 100, 100, 100]),
    }


def identities(rng: random.Random, *, devices: bool = True) -> dict[str, str]:
    """Return the identities of one request; sometimes junk, sometimes none."""
    out: dict[str, str] = {}
    for kind, values in VALUES.items():
        if rng.random() < (0.45 if kind in USER else 0.55) and (devices or kind in USER):
            out[kind] = rng.choice(values)
    if rng.random() < 0.03:
        out["email"] = "undefined"
    return out


def operation(rng: random.Random, mpids: list[str]) -> Op:
    """Return one request; `mpids` are those there are, the last ones made last."""
    name = rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
    known = identities(rng)
    someone = rng.choice(mpids) if mpids else None
    if name in ("identify", "login", "logout", "search"):
        op: Op = {"op": name, "known_identities": known}
        if someone is not None and name != "search" and rng.random() < 0.4:
            op["previous_mpid"] = someone
        if name == "logout" and rng.random() < 0.7:
            op["known_identities"] = {k: v for k, v in known.items() if k in DEVICE}
        if name in ("identify", "login") and rng.random() < 0.4:
            op["explain"] = False
        return op | ({"key_only": True} if rng.random() < 0.25 else {})
    if name == "events":
        op = {"op": name, "identities": known, "server_side": True}
        return op | ({"mpid": someone} if someone and rng.random() < 0.6 else {})
    if name == "feed":
        return {"op": name, "identities": known, "replace_values": rng.random() < 0.3}
    if someone is None:
        return {"op": "identify", "known_identities": known}
    if name == "modify":
        op = {"op": name, "mpid": someone, "identity_changes": _changes(rng)}
        return op | ({"key_only": True} if rng.random() < 0.25 else {})
    if name == "erase":
        return {"op": name, "mpid": someone}
    start = rng.randrange(1_000_000)
    data = {
        "source_mpid": someone,
        "destination_mpid": rng.choice(mpids),
        "start_unixtime_ms": start,
        "end_unixtime_ms": start + rng.randrange(-1_000, 500_000),
    }
    return {"op": "alias", "data": data}


def _changes(rng: random.Random) -> list[dict[str, Any]]:
    out = []
    for kind in rng.sample(list(VALUES), rng.randrange(1, 3)):
        values = VALUES[kind]
        new = rng.choice([*values, None]) if rng.random() < 0.8 else None
        old = rng.choice([*values, None, None, None])
        out.append({"identity_type": kind, "old_value": old, "new_value": new})
    return out
