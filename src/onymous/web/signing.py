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
#: prefixes a customer's own host puts before the default path
PREFIXES = ("/identity", "/nativeevents", "/config", "/webevents", "/tags")
#: paths whose version was left out, and what stands before them in the default path
_SHORT = (
    (re.compile(r"/(identify|login|logout|search)"), "/v1"),
    (re.compile(r"/[^/]+/(modify|audience)"), "/v1"),
    (re.compile(r"/[^/]+/alias", re.IGNORECASE), "/v1/identity"),
    (re.compile(r"/[^/]+/events"), "/v2"),
    (re.compile(r"/[^/]+/config"), "/v4"),
)
_COMPACT = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_RFC = re.compile(
    r"[A-Za-z]{3}, (\d{1,2}) ([A-Za-z]{3}) (\d{4}) (\d\d):(\d\d):(\d\d) ([A-Za-z0-9:+-]{1,10})",
    re.ASCII,
)
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)", re.ASCII)
_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])(\d{1,2}):?(\d\d)?", re.ASCII)
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905
#: names devices give to their time zone, by hours east of Greenwich; some names are several's
_NAMED = {
    -10.0: "HST",
    -9.0: "AKST HDT",
    -8.0: "PST AKDT",
    -7.0: "MST PDT",
    -6.0: "CST MDT",
    -5.0: "EST CDT COT PET ECT CST",
    -4.0: "AST EDT CLT VET BOT AMT PYT GYT CDT",
    -3.5: "NST",
    -3.0: "ADT BRT ART CLST UYT PYST GFT SRT AMST",
    -2.5: "NDT",
    -2.0: "BRST UYST FNT",
    -1.0: "AZOT CVT",
    0.0: "GMT UTC UT Z WET AZOST EGST",
    1.0: "CET BST WEST WAT IST",
    2.0: "CEST EET SAST CAT IST",
    3.0: "EEST MSK EAT TRT AST IDT",
    3.5: "IRST",
    4.0: "GST AMT AZT GET SAMT MUT",
    4.5: "IRDT AFT",
    5.0: "PKT UZT TMT TJT YEKT MVT",
    5.5: "IST",
    5.75: "NPT",
    6.0: "BST BDT BTT ALMT OMST",
    6.5: "MMT",
    7.0: "ICT WIB KRAT NOVT",
    8.0: "SGT HKT AWST CST MYT PHT PST WITA IRKT ULAT",
    9.0: "JST KST WIT YAKT",
    9.5: "ACST",
    10.0: "AEST EST CHST VLAT",
    10.5: "ACDT",
    11.0: "AEDT EDT SBT MAGT",
    12.0: "NZST FJT PETT",
    13.0: "NZDT TOT",
}
_ZONES = {
    name: [hours for hours, names in _NAMED.items() if name in names.split()]
    for name in " ".join(_NAMED.values()).split()
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


def parse_dates(text: str) -> list[int]:
    """Return the times a Date header may mean, in milliseconds; none for what no client sends.

    Known: ISO basic and extended, RFC 1123 with GMT, offsets, `GMT+01:00` and the usual zone names.
    Devices far from each other call their zones the same (CST is Chicago's, Havana's and China's).
    """
    text = text.strip()
    try:
        if _COMPACT.fullmatch(text):
            found = [datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)]
        elif _ISO.fullmatch(text):
            found = [datetime.fromisoformat(text)]
        elif match := _RFC.fullmatch(text):
            found = _rfc(match)
        else:
            return []
        return [int(at.timestamp() * 1000) for at in found]
    except (ValueError, OverflowError):
        return []


def _rfc(match: re.Match[str]) -> list[datetime]:
    day, month, year, hour, minute, second, zone = match.groups()
    place = _MONTHS.index(month.lower()) + 1
    local = datetime(int(year), place, int(day), int(hour), int(minute), int(second))
    return [local.replace(tzinfo=timezone(timedelta(hours=h))) for h in _hours_east(zone)]


def _hours_east(zone: str) -> list[float]:
    """Return how far east a zone may be; ValueError for an unknown one."""
    upper = zone.upper()
    if upper in _ZONES:
        return _ZONES[upper]
    match = _OFFSET.fullmatch(upper)
    if match is None:
        raise ValueError("unknown zone")
    sign, hours, minutes = match.groups()
    east = int(hours) + int(minutes or 0) / 60
    return [east if sign == "+" else -east]


def canonical_paths(path: str, query: str) -> list[str]:
    """Return the paths a client may have signed for a request, the likeliest first.

    The default URL's path (prefix stripped, version put back), then the path as it came; each with
    the whole query, without data plan parameters, and without any.
    """
    bare = path
    for prefix in PREFIXES:
        if path.startswith(prefix + "/"):
            bare = path[len(prefix) :]
    paths = [before + bare for short, before in _SHORT if short.fullmatch(bare)]
    paths += [bare, path]
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
