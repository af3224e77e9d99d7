"""Credentials in headers: Basic, and the HMAC signature of native SDKs with all its variants.

A signature is the hex HMAC-SHA256 over method, date and path (a newline after the first two) and
body: the date is the header's own text, the path that of the default URL (also behind a prefix),
the body the uncompressed JSON.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from datetime import UTC, datetime, timedelta, timezone

#: longest Basic header, key and secret together
MOST_BASIC = 2048
#: prefixes a customer's own host puts before the default path -> the version it may leave out
PREFIXES = {
    "/identity": "/v1",
    "/nativeevents": "/v2",
    "/config": "/v4",
    "/webevents": "/v3",
    "/tags": "",
}
_COMPACT = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_RFC = re.compile(
    r"[A-Za-z]{3}, (\d{1,2}) ([A-Za-z]{3}) (\d{4}) (\d\d):(\d\d):(\d\d) ([A-Za-z0-9:+-]{1,10})",
    re.ASCII,
)
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)", re.ASCII)
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905
#: hours east of Greenwich of the names devices use for their time zone
_ZONES = {
    **dict.fromkeys(("GMT", "UTC", "UT", "Z", "WET"), 0.0),
    **dict.fromkeys(("CET", "BST", "WEST", "WAT"), 1.0),
    **dict.fromkeys(("CEST", "EET", "SAST", "CAT"), 2.0),
    **dict.fromkeys(("EEST", "MSK", "EAT", "TRT"), 3.0),
    **dict.fromkeys(("AST", "CLT"), -4.0),
    **dict.fromkeys(("ADT", "BRT", "ART"), -3.0),
    **dict.fromkeys(("EDT",), -4.0),
    **dict.fromkeys(("EST", "CDT"), -5.0),
    **dict.fromkeys(("CST", "MDT"), -6.0),
    **dict.fromkeys(("MST", "PDT"), -7.0),
    **dict.fromkeys(("PST", "AKDT"), -8.0),
    "AKST": -9.0,
    "HST": -10.0,
    "GST": 4.0,
    "PKT": 5.0,
    "IST": 5.5,
    "ICT": 7.0,
    "WIB": 7.0,
    "SGT": 8.0,
    "HKT": 8.0,
    "AWST": 8.0,
    "JST": 9.0,
    "KST": 9.0,
    "AEST": 10.0,
    "AEDT": 11.0,
    "NZST": 12.0,
    "NZDT": 13.0,
}


def parse_basic(header: str) -> tuple[str, str] | None:
    """Return (key, secret) of a Basic Authorization header, or None where it is none."""
    scheme, _, data = header.strip().partition(" ")
    data = data.strip().rstrip("=")
    if scheme.lower() != "basic" or not data or len(data) > MOST_BASIC:
        return None
    try:
        text = base64.b64decode(data + "=" * (-len(data) % 4), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    key, colon, secret = text.partition(":")
    return (key, secret) if colon and key else None


def parse_date(text: str) -> int | None:
    """Return the time a Date header means, in milliseconds, or None for none a client sends.

    Known: ISO basic and extended, RFC 1123 with GMT, offsets, `GMT+01:00` and the usual zone names.
    """
    text = text.strip()
    try:
        if _COMPACT.fullmatch(text):
            at = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        elif _ISO.fullmatch(text):
            at = datetime.fromisoformat(text)
        elif match := _RFC.fullmatch(text):
            at = _rfc(match)
        else:
            return None
    except (ValueError, KeyError, OverflowError):
        return None
    return int(at.timestamp() * 1000)


def _rfc(match: re.Match[str]) -> datetime:
    day, month, year, hour, minute, second, zone = match.groups()
    place = _MONTHS.index(month.lower()) + 1
    parts = [int(year), place, int(day), int(hour), int(minute), int(second)]
    return datetime(*parts, tzinfo=_zone(zone))  # type: ignore[arg-type, misc]


def _zone(zone: str) -> timezone:
    """Return the time zone of a name or offset; KeyError or ValueError for an unknown one."""
    upper = zone.upper()
    if upper in _ZONES:
        return timezone(timedelta(hours=_ZONES[upper]))
    offset = upper.removeprefix("GMT").removeprefix("UTC").replace(":", "")
    if not re.fullmatch(r"[+-]\d{4}", offset, re.ASCII):
        raise ValueError("unknown zone")
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes))


def canonical_paths(path: str, query: str) -> list[str]:
    """Return the paths a client may have signed for a request, the likeliest first.

    The default URL's path (prefix stripped, version put back), then the path as it came; each with
    the whole query, without data plan parameters, and without any.
    """
    paths = []
    for prefix, version in PREFIXES.items():
        if path.startswith(prefix + "/"):
            bare = path[len(prefix) :]
            if version and not re.match(r"/(v\d|JS/v\d|s2s)", bare):
                paths.append(version + bare)
            paths.append(bare)
    if re.fullmatch(r"/[^/]+/events", path):
        # a host of its own whose paths leave the version out
        paths.append(f"/v2{path}")
    paths.append(path)
    if not query:
        return list(dict.fromkeys(paths))
    fewer = "&".join(p for p in query.split("&") if not p.startswith("plan_"))
    tails = [f"?{query}", f"?{fewer}" if fewer else "", ""]
    return list(dict.fromkeys(p + tail for p in paths for tail in tails))


def sign(secret: bytes, method: str, date: str, path: str, body: bytes) -> str:
    """Return the signature of a request, as clients make it."""
    text = f"{method}\n{date}\n{path}".encode("utf-8", "surrogateescape")
    return hmac.digest(secret, text + body, "sha256").hex()


def verify(
    secret: bytes, method: str, date: str, path: str, query: str, body: bytes, signature: str
) -> bool:
    """Return whether a signature fits one of the paths the client may have signed."""
    given = signature.strip().lower().encode("utf-8", "replace")
    fits = False
    for candidate in canonical_paths(path, query):
        wanted = sign(secret, method, date, candidate, body).encode()
        fits = hmac.compare_digest(wanted, given)
        if fits:
            break
    return fits
