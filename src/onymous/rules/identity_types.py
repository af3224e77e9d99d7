"""The identity types with all their spellings, as one table.

Columns: our stable code, Identity API name, events API, Profile API, OpenDSR (-: none), number in
SDKs, number in Apple's MPIdentity, number in the UWP SDK, outbound (firehose) name, platform
filter name, default rank. A trailing `*` marks a spelling chosen to match its family.
"""

from __future__ import annotations

import msgspec

USER_TABLE = """
1  customerid customer_id customer_id controller_customer_id 1 1 1 customer CustomerId 1
2  email email email email 7 7 7 email Email 3
3  mobile_number mobile_number mobile_number* mobile_number 19 19 32 mobile_number - 2
4  phone_number_2 phone_number_2 phone_number_2* phone_number_2 20 20 33 phone_number_2 - -
5  phone_number_3 phone_number_3 phone_number_3* phone_number_3 21 21 34 phone_number_3 - -
6  other other other other 0 0 0 other Other 4
7  other2 other_id_2 other_id_2* other2 10 10 22 other2 - -
8  other3 other_id_3 other_id_3* other3 11 11 23 other3 - -
9  other4 other_id_4 other_id_4* other4 12 12 24 other4 - -
10 other5 other_id_5 other_id_5* other5 13 13 26 other5 - -
11 other6 other_id_6 other_id_6* other6 14 14 27 other6 - -
12 other7 other_id_7 other_id_7* other7 15 15 28 other7 - -
13 other8 other_id_8 other_id_8* other8 16 16 29 other8 - -
14 other9 other_id_9 other_id_9* other9 17 17 30 other9 - -
15 other10 other_id_10 other_id_10* other10 18 18 31 other10 - -
16 facebook facebook facebook_id - 2 2 2 facebook Facebook 5
17 google google google_id - 4 4 4 google Google 6
18 twitter twitter twitter_id - 3 3 3 twitter Twitter 7
19 microsoft microsoft microsoft_id - 5 5 5 microsoft Microsoft 8
20 yahoo yahoo yahoo_id - 6 6 6 yahoo Yahoo 9
21 facebookcustomaudienceid facebook_custom_audience_id facebook_custom_audience_id - 9 9 9 - - -
22 alias alias - - 8 8 25 - - -
"""

DEVICE_TABLE = """
40 ios_idfa ios_advertising_id ios_advertising_id ios_advertising_id - 22 12 ios_advertising_id - 10
41 ios_idfv ios_idfv ios_vendor_id ios_vendor_id - 23 15 ios_vendor_id - 11
42 android_aaid android_advertising_id google_advertising_id android_advertising_id - - 11 """
DEVICE_TABLE += """google_advertising_id - 12
43 android_uuid android_uuid android_id android_id - - 14 android_id - 13
44 fire_aid fire_advertising_id fire_advertising_id* fire_advertising_id - - 21 """
DEVICE_TABLE += """fire_advertising_id - -
45 roku_aid roku_advertising_id roku_advertising_id* roku_advertising_id - - 10 """
DEVICE_TABLE += """roku_advertising_id - 14
46 roku_publisher_id roku_publisher_id roku_publisher_id* roku_publisher_id - - 17 """
DEVICE_TABLE += """roku_publisher_id - 15
47 microsoft_publisher_id microsoft_publisher_id microsoft_publisher_id* """
DEVICE_TABLE += """microsoft_publisher_id - - 20 microsoft_publisher_id - 16
48 microsoft_aid microsoft_advertising_id microsoft_advertising_id* """
DEVICE_TABLE += """microsoft_advertising_id - - 19 microsoft_advertising_id - 17
49 amp_id amp_id amp_id - - - 13 - - -
50 push_token push_token push_notification_token - - 24 16 apple_push_notification_token - -
51 device_application_stamp mp_deviceid - - - 25 18 - - 18
"""

#: spellings seen in files, exports and SDKs beside those of the table
MORE_SPELLINGS = {
    "roku_publishing_id": "roku_publisher_id",
    "google_cloud_messaging_token": "push_token",
    "other1": "other",
    "facebook_id": "facebook",
    "phone_number_1": "mobile_number",
    "facebook_app_user_id": "facebookcustomaudienceid",
    # client-side names of the web SDK for hashed values
    "email_sha256": "other",
    "mobile_sha256": "other2",
    # field names of the native wire
    "rida": "roku_aid",
    "rpb": "roku_publisher_id",
}
#: names for people
LABELS = {
    "customerid": "Customer ID",
    "email": "Email",
    "mobile_number": "Phone number (mobile)",
    "phone_number_2": "Phone number 2",
    "phone_number_3": "Phone number 3",
    "other": "Other",
    **{f"other{n}": f"Other {n}" for n in range(2, 11)},
    "facebook": "Facebook ID",
    "google": "Google ID",
    "twitter": "Twitter ID",
    "microsoft": "Microsoft ID",
    "yahoo": "Yahoo ID",
    "facebookcustomaudienceid": "Facebook App User ID",
    "alias": "Alias (legacy)",
    "ios_idfa": "Apple IDFA",
    "ios_idfv": "Apple IDFV",
    "android_aaid": "Google Advertising ID",
    "android_uuid": "Android ID (legacy)",
    "fire_aid": "Amazon Fire Advertising ID",
    "roku_aid": "Roku Advertising ID",
    "roku_publisher_id": "Roku Publisher ID",
    "microsoft_publisher_id": "Microsoft Publisher ID",
    "microsoft_aid": "Microsoft Advertising ID",
    "amp_id": "AMP ID",
    "push_token": "Push token",
    "device_application_stamp": "Device Application Stamp",
}
#: keys of audience messages written to streams
STREAM_KEYS = {
    "customerid": "CustomerId",
    "email": "Email",
    "facebook": "FacebookId",
    "google": "GoogleId",
    "twitter": "TwitterId",
    "microsoft": "MicrosoftId",
    "yahoo": "YahooId",
    "other": "Other",
    **{f"other{n}": f"Other{n}" for n in range(2, 11)},
}
#: OpenDSR has no word for these: they travel in its extension
DSR_EXTENSION = {"mobile_number", "phone_number_2", "phone_number_3", "other"}
DSR_EXTENSION |= {f"other{n}" for n in range(2, 11)}
#: advertising ids are GUIDs whose case differs by platform
GUIDS = {"ios_idfa", "android_aaid", "fire_aid", "roku_aid", "microsoft_aid"}


class IdentityType(msgspec.Struct, frozen=True, kw_only=True):
    """One identity type. `code` is stored in the database and never changes."""

    code: int
    #: Identity API spelling
    name: str
    #: name for people, as in the console
    label: str
    #: "user" (belongs to a person) or "device"
    klass: str
    #: field of the events API: in `user_identities` or `device_info`
    events: str
    profile_api: str | None
    opendsr: str | None
    #: whether `opendsr` is a key of the extension instead of a subject identity
    opendsr_extension: bool
    #: number in web and Android SDKs and on the native wire
    sdk_code: int | None
    ios_code: int | None
    uwp_code: int | None
    #: outbound audience and event name; a push token of Android is google_cloud_messaging_token
    firehose: str | None
    platform_filter: str | None
    #: key in audience messages to streams
    stream: str | None
    default_rank: int | None
    #: compared in lower case
    guid: bool


def _rows(table: str, klass: str) -> list[IdentityType]:
    out = []
    for line in table.strip().splitlines():
        cells = [None if c == "-" else c.rstrip("*") for c in line.split()]
        code, name, events, profile, dsr, sdk, ios, uwp, firehose, filter_name, rank = cells
        out.append(
            IdentityType(
                code=int(code or 0),
                name=name or "",
                label=LABELS[name or ""],
                klass=klass,
                events=events or "",
                profile_api=profile,
                opendsr=dsr,
                opendsr_extension=name in DSR_EXTENSION,
                sdk_code=_number(sdk),
                ios_code=_number(ios),
                uwp_code=_number(uwp),
                firehose=firehose,
                platform_filter=filter_name,
                stream=STREAM_KEYS.get(name or ""),
                default_rank=_number(rank),
                guid=name in GUIDS,
            )
        )
    return out


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


TYPES: tuple[IdentityType, ...] = (*_rows(USER_TABLE, "user"), *_rows(DEVICE_TABLE, "device"))
BY_NAME: dict[str, IdentityType] = {t.name: t for t in TYPES}
BY_CODE: dict[int, IdentityType] = {t.code: t for t in TYPES}
BY_SDK_CODE: dict[int, IdentityType] = {t.sdk_code: t for t in TYPES if t.sdk_code is not None}
#: the default hierarchy, most reliable first
DEFAULT_PRIORITY: tuple[str, ...] = tuple(
    t.name for t in sorted(TYPES, key=lambda t: t.default_rank or 99) if t.default_rank
)


def _folded() -> dict[str, IdentityType]:
    """Collect every spelling anywhere; Identity API names win over other places' names.

    Columns of files carry the section before a dot: `user_identities.` or `device_info.`.
    """
    out: dict[str, IdentityType] = dict(BY_NAME)
    for kind in TYPES:
        spellings = [kind.events, kind.profile_api, kind.opendsr, kind.firehose]
        for spelling in (*spellings, kind.platform_filter, kind.stream):
            if spelling:
                out.setdefault(spelling, kind)
    for spelling, name in MORE_SPELLINGS.items():
        out.setdefault(spelling, BY_NAME[name])
    for spelling, kind in tuple(out.items()):
        section = "user_identities" if kind.klass == "user" else "device_info"
        out[f"{section}.{spelling}"] = kind
    return out


FOLDED: dict[str, IdentityType] = _folded()
_ANY_CASE: dict[str, IdentityType] = {name.lower(): kind for name, kind in FOLDED.items()}


def type_of(name: str, *, any_case: bool = False) -> IdentityType | None:
    """Return the type a spelling means, or None for an unknown one.

    `any_case` is for columns of a warehouse, whose names have no case; JSON keys and CSV columns
    have one.
    """
    return _ANY_CASE.get(name.strip().lower()) if any_case else FOLDED.get(name)
