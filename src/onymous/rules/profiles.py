"""What is kept of one person in one workspace, and how a batch changes it.

Newer information wins, also when it arrives earlier: every attribute, consent and switch carries
the time it is from. Counters only grow by what a batch brings, and a batch is applied once.
"""

from __future__ import annotations

import bisect
import hashlib

import msgspec

from onymous.rules import apps, places
from onymous.rules.attributes import MOST_ATTRIBUTES
from onymous.rules.consent import Consent, newer
from onymous.rules.devices import Device as Seen
from onymous.rules.events import Batch, Change
from onymous.rules.sessions import twice

#: bounds of one person and workspace; the oldest make room
MOST_DEVICES, MOST_GONE, MOST_CONSENTS, MOST_INPUTS, MOST_ATTRIBUTIONS = 50, 100, 200, 64, 20
#: integrations, attributes of one, partner identities, sessions whose start is recognised
MOST_MODULES, MOST_ITEMS, MOST_PARTNERS, MOST_SESSIONS = 50, 50, 50, 50
#: platforms whose app is known, and platforms counted by: what is beyond counts as OTHER
MOST_APPS, MOST_PLATFORMS = 16, 32
OTHER = "other"
#: all amounts of one person together, without signs, in millionths: sums of them stay exact
MOST_WORTH = 10**18


class Attribute(msgspec.Struct, array_like=True, gc=False):
    """A user attribute: text, a list of texts, or None (a tag), and the time it is from."""

    value: str | list[str] | None
    at_ms: int


class Device(msgspec.Struct, array_like=True):
    """A device a person was seen with in one workspace. Its identities are on the record."""

    #: the device application stamp, or empty for devices that have none
    stamp: str
    platform: str
    first_ms: int
    last_ms: int
    info: dict[str, str] = {}
    limit_ad_tracking: bool | None = None
    push_token: str | None = None
    attribution: tuple[str, str, str] | None = None


class Person(msgspec.Struct, array_like=True):
    """One person in one workspace."""

    first_ms: int
    last_ms: int
    #: receive time of the last batch
    stored_ms: int
    attributes: dict[str, Attribute] = {}
    #: attributes forgotten and when, so that a late batch does not bring them back
    gone: dict[str, int] = {}
    #: "gdpr/purpose" -> the answer in force
    consent: dict[str, Consent] = {}
    #: every change of consent, oldest first
    consents: list[tuple[str, Consent]] = []
    devices: list[Device] = []
    #: input -> first and last seen
    inputs: dict[int, tuple[int, int]] = {}
    #: platform -> worth in millionths
    worth: dict[str, int] = {}
    sessions: dict[str, int] = {}
    batches: int = 0
    events: int = 0
    opted_out: tuple[bool, int] | None = None
    limit_ad_tracking: tuple[bool, int] | None = None
    attributions: list[tuple[str, str, str]] = []
    integrations: dict[str, dict[str, str]] = {}
    partners: dict[str, str] = {}
    #: digests of the latest sessions, so that a start that is sent again does not count again
    started: list[int] = []
    #: where they were last
    place: places.Place | None = None
    #: platform -> the app on it
    apps: dict[str, apps.App] = {}
    #: all amounts counted, without signs
    turnover: int = 0


class Counted(msgspec.Struct):
    """What of a batch counts, at the time it happened."""

    at_ms: int
    platform: str
    worth: int
    sessions: int


class Context(msgspec.Struct):
    """Where a batch came in, as far as the profile cares."""

    input: int
    #: platform the input stands for
    platform: str
    may_consent: bool = True
    #: declared purposes of the workspace, or None where any may be stated
    purposes: frozenset[str] | None = None
    #: what partner identities may begin with; None: any may be stated
    partners: tuple[str, ...] | None = None


def fresh(batch: Batch) -> Person:
    """Return a person first seen by this batch."""
    return Person(batch.first_ms, batch.last_ms, batch.received_ms)


def platform_of(batch: Batch, context: Context) -> str:
    """Return the platform a batch counts for."""
    return batch.device.platform if batch.device is not None else context.platform


def absorb(person: Person, batch: Batch, context: Context) -> list[Counted]:
    """Apply a batch to a person; return what counts. Reasons go to the batch's notes."""
    person.first_ms = min(person.first_ms, batch.first_ms)
    person.last_ms = max(person.last_ms, batch.last_ms)
    person.stored_ms = max(person.stored_ms, batch.received_ms)
    first, last = person.inputs.get(context.input, (batch.first_ms, batch.last_ms))
    if context.input in person.inputs or len(person.inputs) < MOST_INPUTS:
        person.inputs[context.input] = (min(first, batch.first_ms), max(last, batch.last_ms))
    person.batches += 1
    person.events += batch.events
    for change in batch.changes:
        _change(person, change, batch.notes)
    if batch.consent:
        _consent(person, batch, context)
    if batch.device is not None:
        _device(person, batch, batch.device)
    _switches(person, batch)
    if batch.integrations or batch.partners:
        _belongings(person, batch, context)
    platform = platform_of(batch, context)
    if platform not in person.worth and platform not in person.sessions:
        many = max(len(person.worth), len(person.sessions)) >= MOST_PLATFORMS
        platform = OTHER if many else platform
    if batch.place is not None:
        person.place = places.later(person.place, batch.place)
    if batch.app is not None and (platform in person.apps or len(person.apps) < MOST_APPS):
        person.apps[platform] = apps.newer(person.apps.get(platform), batch.app)
    return _count(person, batch, platform)


def _belongings(person: Person, batch: Batch, context: Context) -> None:
    """Take what other systems know the person by."""
    for module, items in batch.integrations.items():
        if module in person.integrations or len(person.integrations) < MOST_MODULES:
            own = person.integrations.get(module, {}) | items
            person.integrations[module] = dict(list(own.items())[-MOST_ITEMS:])
    for name, value in batch.partners.items():
        if context.partners is not None and not name.startswith(context.partners):
            batch.notes.append("partner_identity_foreign")
        elif name in person.partners or len(person.partners) < MOST_PARTNERS:
            person.partners[name] = value


def _change(person: Person, change: Change, notes: list[str]) -> None:
    """Set or forget an attribute, unless something newer is known of it."""
    name, at_ms = change.name, change.at_ms
    old = person.attributes.get(name)
    if at_ms < (old.at_ms if old is not None else 0):
        return
    if person.gone and at_ms < person.gone.get(name, 0):
        return
    if change.deleted:
        person.attributes.pop(name, None)
        person.gone.pop(name, None)
        person.gone[name] = at_ms
        if len(person.gone) > MOST_GONE:
            del person.gone[min(person.gone, key=person.gone.__getitem__)]
    elif old is None and len(person.attributes) >= MOST_ATTRIBUTES:
        notes.append("too_many_attributes")
    else:
        person.attributes[name] = Attribute(change.value, at_ms)
        if person.gone:
            person.gone.pop(name, None)


def _consent(person: Person, batch: Batch, context: Context) -> None:
    if not context.may_consent:
        batch.notes.append("consent_not_allowed")
        return
    for stated in batch.consent:
        declared = context.purposes
        if stated.regulation == "gdpr" and declared is not None and stated.purpose not in declared:
            batch.notes.append("consent_purpose_undeclared")
            continue
        if not set_consent(person, stated.regulation, stated.purpose, stated.consent):
            _late(person, f"{stated.regulation}/{stated.purpose}", stated.consent)


def _late(person: Person, name: str, consent: Consent) -> None:
    """Put an answer that is not in force into the history, where it is not there yet."""
    if consent != person.consent.get(name) and (name, consent) not in person.consents:
        bisect.insort(person.consents, (name, consent), key=lambda c: c[1].at_ms)
        del person.consents[:-MOST_CONSENTS]


def set_consent(person: Person, regulation: str, purpose: str, consent: Consent) -> bool:
    """Store an answer if it is newer than the one in force; return whether it was."""
    name = f"{regulation}/{purpose}"
    old = person.consent.get(name)
    if not newer(regulation, consent, old):
        return False
    person.consent[name] = consent
    if old is None or old.consented != consent.consented or old.document != consent.document:
        person.consents.append((name, consent))
        del person.consents[:-MOST_CONSENTS]
    return True


def _device(person: Person, batch: Batch, seen: Seen) -> None:
    stamp = seen.stamp or ""
    for device in person.devices:
        if device.stamp == stamp and (stamp or device.platform == seen.platform):
            break
    else:
        device = Device(stamp, seen.platform, batch.first_ms, batch.last_ms)
        person.devices.append(device)
        if len(person.devices) > MOST_DEVICES:
            person.devices.remove(min(person.devices, key=lambda d: d.last_ms))
    newest = batch.last_ms >= device.last_ms
    device.first_ms = min(device.first_ms, batch.first_ms)
    device.last_ms = max(device.last_ms, batch.last_ms)
    if newest:
        # a server that names a device does not say what it is
        if "platform" in seen.info:
            device.platform = seen.platform
        device.info |= seen.info
        if seen.limit_ad_tracking is not None:
            device.limit_ad_tracking = seen.limit_ad_tracking
        if seen.push is not None:
            device.push_token = seen.push or None
    if batch.attribution is not None:
        device.attribution = batch.attribution


def _switches(person: Person, batch: Batch) -> None:
    person.opted_out = _latest(person.opted_out, batch.opted_out)
    limited = batch.device.limit_ad_tracking if batch.device is not None else None
    if limited is not None:
        person.limit_ad_tracking = _latest(person.limit_ad_tracking, (limited, batch.last_ms))
    given = batch.attribution
    if given is not None and given not in person.attributions:
        person.attributions.append(given)
        del person.attributions[:-MOST_ATTRIBUTIONS]


def _latest(old: tuple[bool, int] | None, new: tuple[bool, int] | None) -> tuple[bool, int] | None:
    """Return the later of two switches; of equal times the one that came last."""
    if old is None or new is None:
        return new or old
    return new if new[1] >= old[1] else old


def _count(person: Person, batch: Batch, platform: str) -> list[Counted]:
    if not batch.worth and not batch.sessions:
        return []
    counted: dict[int, Counted] = {}
    for at, worth in batch.worth:
        if person.turnover + abs(worth) > MOST_WORTH:
            batch.notes.append("worth_too_large")
            continue
        person.turnover += abs(worth)
        item = counted.setdefault(at, Counted(at, platform, 0, 0))
        item.worth += worth
    for at, name in batch.sessions:
        if name and not _starts(person, name):
            continue
        item = counted.setdefault(at, Counted(at, platform, 0, 0))
        item.sessions += 1
    worth = sum(c.worth for c in counted.values())
    sessions = sum(c.sessions for c in counted.values())
    if worth:
        person.worth[platform] = person.worth.get(platform, 0) + worth
    if sessions:
        person.sessions[platform] = person.sessions.get(platform, 0) + sessions
    return list(counted.values())


def _starts(person: Person, session: str) -> bool:
    """Return whether a session was not known before, and remember it."""
    digest = hashlib.blake2b(session.encode("utf-8", "replace"), digest_size=8).digest()
    number = int.from_bytes(digest, "big", signed=True)
    if number in person.started:
        return False
    person.started.append(number)
    del person.started[:-MOST_SESSIONS]
    return True


def combine(one: Person, two: Person) -> Person:
    """Return what two profiles of one person know together: the newer of each, and the sums."""
    later, earlier = (one, two) if one.stored_ms >= two.stored_ms else (two, one)
    out = Person(
        min(one.first_ms, two.first_ms),
        max(one.last_ms, two.last_ms),
        later.stored_ms,
        gone=_latest_of(earlier.gone, later.gone),
        devices=_devices(earlier, later),
        batches=one.batches + two.batches,
        events=one.events + two.events,
        opted_out=_latest(earlier.opted_out, later.opted_out),
        limit_ad_tracking=_latest(earlier.limit_ad_tracking, later.limit_ad_tracking),
        attributions=list(dict.fromkeys([*earlier.attributions, *later.attributions])),
        integrations={
            module: earlier.integrations.get(module, {}) | later.integrations.get(module, {})
            for module in earlier.integrations | later.integrations
        },
        partners=earlier.partners | later.partners,
        started=list(dict.fromkeys([*earlier.started, *later.started])),
        place=places.later(earlier.place, later.place),
    )
    for person in (earlier, later):
        _add_attributes(out, person)
        for name, consent in person.consent.items():
            if newer(name.partition("/")[0], consent, out.consent.get(name)):
                out.consent[name] = consent
        for number, (first, last) in person.inputs.items():
            known = out.inputs.get(number, (first, last))
            out.inputs[number] = (min(first, known[0]), max(last, known[1]))
        for platform, app in person.apps.items():
            out.apps[platform] = apps.newer(out.apps.get(platform), app)
        for sums, own in ((out.worth, person.worth), (out.sessions, person.sessions)):
            for platform, count in own.items():
                sums[platform] = sums.get(platform, 0) + count
    for platform, count in counted_twice(one, two).items():
        out.sessions[platform] -= count
    out.consents = sorted([*one.consents, *two.consents], key=lambda c: c[1].at_ms)
    return out


def counted_twice(one: Person, two: Person) -> dict[str, int]:
    """Return the sessions of `two` that `one` counts already, by platform."""
    if not one.started or not two.started:
        return {}
    return twice(one.started, two.started, one.sessions, two.sessions)


def _add_attributes(out: Person, person: Person) -> None:
    """Add attributes: the newer value wins, and what was forgotten later stays forgotten."""
    for name, attribute in person.attributes.items():
        old = out.attributes.get(name)
        forgotten = out.gone.get(name, 0) > attribute.at_ms
        if not forgotten and (old is None or attribute.at_ms >= old.at_ms):
            out.attributes[name] = attribute


def _latest_of(one: dict[str, int], two: dict[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), two.get(name, 0)) for name in one | two}


def _devices(earlier: Person, later: Person) -> list[Device]:
    """Return the devices of both, last seen first; one that both were seen with stands once."""
    out: dict[tuple[str, str], Device] = {}
    for new in (*earlier.devices, *later.devices):
        key = (new.stamp, "" if new.stamp else new.platform)
        old = out.get(key)
        if old is not None:
            first, last = (old, new) if new.last_ms >= old.last_ms else (new, old)
            new = msgspec.structs.replace(
                last,
                first_ms=min(old.first_ms, new.first_ms),
                info=first.info | last.info,
                limit_ad_tracking=(
                    first.limit_ad_tracking
                    if last.limit_ad_tracking is None
                    else last.limit_ad_tracking
                ),
                attribution=last.attribution or first.attribution,
            )
        out[key] = new
    return sorted(out.values(), key=lambda d: -d.last_ms)
