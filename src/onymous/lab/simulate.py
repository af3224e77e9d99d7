"""People with a known truth, as a stream of identity requests.

The simulator knows who really did each request, which the server must find out. It imports nothing
of the product's rules and needs the standard library only. One seed gives one story, always.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from heapq import heappop, heappush

from onymous.lab.simulate_people import Device, Person, Town, uuid_text
from onymous.lab.simulate_world import DAY_MS, PRESETS, World

__all__ = ["PRESETS", "Step", "World", "simulate"]

JUNK: tuple[tuple[str, str | None], ...] = (
    ("email", "null"),
    ("email", "undefined"),
    ("customerid", "null"),
    ("customerid", "None"),
    ("customerid", None),
    ("mobile_number", ""),
    ("other", "(null)"),
)
CRM_LANES = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One request, and the truth about it. A repeated request is the same step again."""

    at_ms: int
    """When it was made, milliseconds since 1970; a late one appears after younger steps."""
    op: str
    """`identify`, `login`, `logout`, `modify`, or `feed` (a CRM row, sent by a server)."""
    client: str
    """One app installation or browser storage; the requests of one client are in order."""
    person: str
    """The truth: who really did it."""
    platform: str
    """As in `client_sdk.platform` of the Identity API."""
    request_id: str
    """A UUID; equal for a request and its repeats only."""
    identities: dict[str, str | None]
    """Identity API names and values; empty for modify. Shared: do not change it."""
    changes: list[dict[str, str | None]]
    """For modify: `identity_type`, `old_value`, `new_value`; else empty."""
    note: str
    """What happened, in words, for a story to be told."""
    signed_in: bool = False
    """The truth: whether the person acts under their account (a CRM row always does)."""


_Visit = Iterator[Step]
_Due = tuple[int, int, Step, _Visit | None, int]
_NO_CHANGES: list[dict[str, str | None]] = []


def simulate(world: World, seed: int, people: int, steps: int) -> Iterator[Step]:
    """Yield `steps` requests of up to `people` persons, in the order of their arrival.

    Deterministic for (world, seed, people, steps): a longer run begins with the shorter one.
    Memory grows with the people seen, not with the steps. ValueError for impossible numbers.
    """
    if people < 1 or steps < 0 or seed < 0:
        raise ValueError("people must be at least 1, steps and seed not negative")
    for field in fields(world):
        value = getattr(world, field.name)
        if field.type is float and field.name not in _NOT_SHARES and not 0 <= value <= 1:
            raise ValueError(f"{field.name} must be a share from 0 to 1, not {value}")
    return _Simulation(world, seed, people).run(steps)


_NOT_SHARES = ("visits_per_day", "activity_skew")


class _Simulation:
    """The running clock: visits begin, their requests fall due, some late, some twice."""

    def __init__(self, world: World, seed: int, people: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.town = Town(world, seed, people, self.rng)
        self.agenda: list[_Due] = []
        self.count = 0
        self.pace = people * world.visits_per_day / DAY_MS

    def run(self, steps: int) -> Iterator[Step]:
        agenda, chance, repeats = self.agenda, self.rng.random, self.world.repeats
        opens = float(self.world.start_ms)
        sent = 0
        while sent < steps:
            if not agenda or agenda[0][0] > opens:
                self.arrive(int(opens))
                opens += self.rng.expovariate(self.pace)
                continue
            due, _, step, visit, delay = heappop(agenda)
            yield step
            sent += 1
            if visit is not None:
                self.proceed(visit, delay)
                if repeats and chance() < repeats:
                    self.plan(due + int(chance() * 20_000), step, None, 0)

    def plan(self, due: int, step: Step, visit: _Visit | None, delay: int) -> None:
        self.count += 1
        heappush(self.agenda, (due, self.count, step, visit, delay))

    def proceed(self, visit: _Visit, delay: int) -> None:
        step = next(visit, None)
        if step is not None:
            self.plan(step.at_ms + delay, step, visit, delay)

    def arrive(self, at: int) -> None:
        """A CRM row or a visit begins now. Nothing happens if the person is on a visit already."""
        chance, world = self.rng.random, self.world
        if self.town.customers and chance() < world.crm_feed:
            self.proceed(self.crm_row(at), 0)
            return
        person = self.town.person(int(self.town.size * chance() ** world.activity_skew))
        if person.busy:
            return
        device = self.choose(person)
        if device.busy:
            return
        if device.kind == "phone" and chance() < world.late:
            # The person is free meanwhile; the phone keeps its requests until it is online again.
            self.proceed(self.visit(person, device, at, offline=True), int(chance() * DAY_MS / 4))
        else:
            self.proceed(self.visit(person, device, at, offline=False), 0)

    # -- things -------------------------------------------------------------------------------
    def choose(self, person: Person) -> Device:
        chance, world = self.rng.random, self.world
        if chance() < world.kiosk_visits:
            return self.town.kiosks[int(chance() * len(self.town.kiosks))]
        shared = person.home.shared
        if shared and chance() < world.shared_visits:
            return shared[int(chance() * len(shared))]
        if person.phone is not None and chance() < world.phone_visits:
            return self.phone_of(person, person.phone)
        return self.browser_of(person)

    def browser_of(self, person: Person) -> Device:
        device = person.browser
        assert device is not None  # everybody is born with one
        if not device.busy and self.rng.random() < self.world.loses_cookies:
            device = self.town.new_device(person, "browser", device.number + 1)
            person.browser = device
        return device

    def phone_of(self, person: Person, device: Device) -> Device:
        chance, world = self.rng.random, self.world
        if device.busy:
            return device
        if chance() < world.replaces_phone:
            person.phone = self.town.new_device(person, "phone", device.number + 1)
            mate = self.town.housemate(person) if chance() < world.hand_down else None
            if mate is not None and (mate.phone is None or not mate.phone.busy):
                mate.phone = self.town.inherit(mate, device)
            return person.phone
        if chance() < world.resets_ad_id:
            self.town.reset_ad_id(device)
        return device

    # -- stories ------------------------------------------------------------------------------
    def crm_row(self, at: int) -> _Visit:
        town, chance = self.town, self.rng.random
        index = int(len(town.customers) * chance())
        person = town.customers[index]
        row: dict[str, str | None] = {"customerid": person.customerid, "email": person.email}
        if person.on_account and chance() < self.world.crm_phone:
            row["mobile_number"] = person.mobile
        client = f"crm/{person.home.first % CRM_LANES}"
        request_id = uuid_text(self.rng)
        label = person.label
        note = "CRM row"
        yield Step(at, "feed", client, label, "other", request_id, row, _NO_CHANGES, note, True)

    def visit(self, person: Person, device: Device, at: int, *, offline: bool) -> _Visit:
        """One person at one device, from the start of the session to its end."""
        device.busy = True
        person.busy = not offline
        direct = False
        if device.user is not None and device.user is not person:
            account = person.customerid is not None
            direct = account and self.rng.random() < self.world.switches_directly
            if not direct:
                yield self.logout(person, device, at, "logs somebody else out on the")
                at += self.gap()
        if not direct:
            yield self.step("identify", person, device, at, device.given, "opens the")
            at += self.gap()
        if device.user is not person:
            for step in self.sign_in(person, device, at, direct, offline):
                yield step
                at = step.at_ms + self.gap()
        if device.user is person:
            if not offline:
                for step in self.change(person, device, at):
                    yield step
                    at = step.at_ms + self.gap()
            if self.rng.random() < self.leaving(device):
                yield self.logout(person, device, at, "logs out on the")
        device.busy = False
        person.busy = person.busy and offline

    def leaving(self, device: Device) -> float:
        if device.kind == "kiosk":
            return 1.0
        own = device.kind == "phone" or device.kind == "browser"
        return self.world.logs_out_own if own else self.world.logs_out_shared

    def sign_in(
        self, person: Person, device: Device, at: int, direct: bool, offline: bool
    ) -> _Visit:
        chance, world = self.rng.random, self.world
        if person.customerid is not None:
            if direct or chance() < world.logs_in:
                yield self.login(person, device, at, "logs in on the")
                return
        elif person.registers and not offline and chance() < world.registers:
            self.town.enrol(person)
            yield self.login(person, device, at, "opens an account on the")
            return
        own = device.kind == "phone" or device.kind == "browser"
        if own and person.home.email is None and chance() < world.guest_email:
            second = person.second if chance() < world.uses_second_email else None
            email = self.spelled(second or person.email)
            note = "leaves a second e-mail on the" if second else "leaves an e-mail on the"
            yield self.step("identify", person, device, at, {"email": email}, note)

    def login(self, person: Person, device: Device, at: int, note: str) -> Step:
        chance, world = self.rng.random, self.world
        given: dict[str, str | None] = {"email": self.spelled(person.email)}
        # A mailbox shared by the family cannot say who logs in.
        if person.home.email is not None or chance() >= world.email_only_login:
            given["customerid"] = person.customerid
        if person.on_account and chance() < world.login_phone:
            given["mobile_number"] = person.mobile
        device.user, device.given = person, given
        return self.step("login", person, device, at, given, note)

    def logout(self, person: Person, device: Device, at: int, note: str) -> Step:
        device.user, device.given = None, {}
        return self.step("logout", person, device, at, {}, note)

    def change(self, person: Person, device: Device, at: int) -> _Visit:
        chance, world = self.rng.random, self.world
        if person.home.email is None and chance() < world.changes_email:
            name, _, domain = person.email.partition("@")
            person.emails += 1
            fresh = f"{name.partition('+')[0]}+{person.emails}@{domain}"
            old, person.email = person.email, fresh
            device.given = device.given | {"email": fresh}
            yield self.modify(
                person, device, at, ("email", old, fresh), "changes the e-mail on the"
            )
        elif not person.on_account and chance() < world.adds_phone:
            person.on_account = True
            change = ("mobile_number", None, person.mobile)
            yield self.modify(person, device, at, change, "adds a phone number on the")

    # -- requests -----------------------------------------------------------------------------
    def gap(self) -> int:
        return 2_000 + int(self.rng.random() * 60_000)

    def spelled(self, email: str) -> str:
        return email.title() + " " if self.rng.random() < self.world.odd_spelling else email

    def step(
        self,
        op: str,
        person: Person,
        device: Device,
        at: int,
        given: dict[str, str | None],
        note: str,
    ) -> Step:
        identities = device.ids | given if given else device.ids
        if not given:
            identities = self.spoilt(op, device, identities)
        label, request_id = person.label, uuid_text(self.rng)
        text = f"{note} {device.kind}"
        client, platform = device.client, device.platform
        return Step(
            at_ms=at,
            op=op,
            client=client,
            person=label,
            platform=platform,
            request_id=request_id,
            identities=identities,
            changes=_NO_CHANGES,
            note=text,
            signed_in=device.user is person,
        )

    def spoilt(self, op: str, device: Device, ids: dict[str, str | None]) -> dict[str, str | None]:
        """What faulty apps add to the request of a user who is not signed in."""
        rng, world = self.rng, self.world
        if device.placeholder and op == "identify":
            return ids | {"customerid": world.placeholder_customer_id}
        if rng.random() < world.junk:
            name, value = JUNK[int(rng.random() * len(JUNK))]
            return ids | {name: value}
        return ids

    def modify(
        self,
        person: Person,
        device: Device,
        at: int,
        change: tuple[str, str | None, str | None],
        note: str,
    ) -> Step:
        entry = dict(zip(("identity_type", "old_value", "new_value"), change, strict=True))
        label, request_id = person.label, uuid_text(self.rng)
        text = f"{note} {device.kind}"
        client, platform = device.client, device.platform
        return Step(
            at, "modify", client, label, platform, request_id, {}, [entry], text, signed_in=True
        )
