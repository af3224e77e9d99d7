"""The simulated people, their households and their things. Standard library only.

Labels carry the truth: person `h4.p12` lives in household `h4`; client `h4.p12/phone-2` is the
second app installation on a phone of that person, `h4/tv` the television of the household,
`kiosk/0` a public device, `crm/3` one of the lanes of the CRM feed.
"""

import random
from bisect import bisect_right
from itertools import accumulate

from onymous.lab.simulate_world import World

FIRST = ("anna", "ben", "chloe", "david", "emma", "felix", "grace", "hugo", "ines", "jonas")
LAST = ("adler", "berg", "costa", "dubois", "evans", "ferrari", "garcia", "holm", "ito", "jansen")
ZERO_ID = "00000000-0000-0000-0000-000000000000"


def uuid_text(rng: random.Random) -> str:
    """A random UUID (version 4) in lower case, drawn from `rng`."""
    h = f"{rng.getrandbits(128):032x}"
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


class Device:
    """One app installation or browser storage, and who is signed in there."""

    __slots__ = (
        "busy",
        "client",
        "given",
        "ids",
        "kind",
        "number",
        "placeholder",
        "platform",
        "user",
    )

    def __init__(self, client: str, kind: str, number: int, platform: str) -> None:
        self.client, self.kind, self.number, self.platform = client, kind, number, platform
        self.ids: dict[str, str | None] = {}
        self.user: Person | None = None
        self.given: dict[str, str | None] = {}
        self.busy = self.placeholder = False


class Home:
    """A household: its people by index, and what they share."""

    __slots__ = ("email", "first", "label", "shared", "size")

    def __init__(self, label: str, first: int, size: int) -> None:
        self.label, self.first, self.size = label, first, size
        self.shared: list[Device] = []
        self.email: str | None = None


class Person:
    """One human being: the account, the addresses, the things. `busy` while on a visit."""

    __slots__ = (
        "browser",
        "busy",
        "customerid",
        "email",
        "emails",
        "home",
        "label",
        "mobile",
        "on_account",
        "phone",
        "registers",
        "second",
    )

    def __init__(self, label: str, home: Home) -> None:
        self.label, self.home = label, home
        self.busy = self.registers = self.on_account = False
        self.customerid: str | None = None
        self.email = self.mobile = ""
        self.emails = 1
        self.second: str | None = None
        self.browser: Device | None = None
        self.phone: Device | None = None


class Town:
    """All people of one simulation, made when they are first needed (memory: those seen only)."""

    def __init__(self, world: World, seed: int, people: int, rng: random.Random) -> None:
        self.world, self.seed, self.rng, self.size = world, seed, rng, people
        self._starts = self._settle(people)
        self._homes: dict[int, Home] = {}
        self._people: dict[int, Person] = {}
        self.customers: list[Person] = []
        kiosks = max(1, people // world.people_per_kiosk)
        self.kiosks = [self._device(f"kiosk/{n}", "kiosk", 0, "other") for n in range(kiosks)]

    def _settle(self, people: int) -> list[int]:
        """Cut the line of people into households; the index of each one's first person."""
        weights = self.world.household_sizes
        steps = self.rng.choices(range(1, len(weights) + 1), weights, k=people)
        starts = [0, *accumulate(steps)]
        return starts[: bisect_right(starts, people - 1)]

    def person(self, index: int) -> Person:
        """The person with this index, 0 .. size-1."""
        found = self._people.get(index)
        if found is None:
            found = self._people[index] = self._born(index)
        return found

    def housemate(self, person: Person) -> Person | None:
        """Somebody else of the household, or None where there is nobody."""
        home = person.home
        if home.size < 2:
            return None
        other = self.person(home.first + self.rng.randrange(home.size))
        return None if other is person else other

    def _home(self, index: int) -> Home:
        number = bisect_right(self._starts, index) - 1
        home = self._homes.get(number)
        if home is None:
            first = self._starts[number]
            end = self._starts[number + 1] if number + 1 < len(self._starts) else self.size
            home = self._homes[number] = Home(f"h{number}", first, end - first)
            if home.size > 1:
                self._furnish(home)
        return home

    def _furnish(self, home: Home) -> None:
        world, chance = self.world, self.rng.random
        if chance() < world.shared_tv:
            platform = "roku" if chance() < 0.6 else "tvos"
            home.shared.append(self._device(f"{home.label}/tv", "tv", 0, platform))
        if chance() < world.shared_tablet:
            home.shared.append(self._device(f"{home.label}/tablet", "tablet", 0, "ios"))
        if chance() < world.family_email:
            home.email = f"family.{LAST[home.first % 10]}.{self.seed}-{home.first}@example.org"

    def _born(self, index: int) -> Person:
        world, rng, home = self.world, self.rng, self._home(index)
        person = Person(f"{home.label}.p{index}", home)
        name = f"{FIRST[index % 10]}.{LAST[home.first % 10]}.{self.seed}-{index}"
        person.email = home.email or f"{name}@example.com"
        person.mobile = f"+4915{self.seed % 100:02d}{index:07d}"
        person.registers = rng.random() >= world.never_registers
        if rng.random() < world.second_email:
            person.second = f"{name}@mail.example.net"
        if person.registers and rng.random() < world.known_before:
            self.enrol(person, index)
            person.on_account = rng.random() < world.crm_phone
        person.browser = self.new_device(person, "browser", 1)
        if rng.random() < world.own_phone:
            person.phone = self.new_device(person, "phone", 1)
        return person

    def enrol(self, person: Person, index: int | None = None) -> None:
        """Open the account: the person gets a customer id and appears in the CRM."""
        number = person.label.rpartition("p")[2] if index is None else index
        person.customerid = f"c-{self.seed}-{number}"
        self.customers.append(person)

    def new_device(self, person: Person, kind: str, number: int) -> Device:
        """A new browser storage or a new phone with the app, of this person alone."""
        platform = "web"
        if kind == "phone":
            platform = "ios" if self.rng.random() < self.world.ios_share else "android"
        device = self._device(f"{person.label}/{kind}-{number}", kind, number, platform)
        device.placeholder = self.rng.random() < self.world.placeholder_apps
        return device

    def inherit(self, person: Person, old: Device) -> Device:
        """The app newly installed by `person` on a housemate's old phone: a new stamp, the ids of
        the device itself stay."""
        number = person.phone.number + 1 if person.phone else 1
        device = Device(f"{person.label}/phone-{number}", "phone", number, old.platform)
        device.ids = old.ids | {"device_application_stamp": uuid_text(self.rng)}
        return device

    def _device(self, client: str, kind: str, number: int, platform: str) -> Device:
        device, rng = Device(client, kind, number, platform), self.rng
        ids = device.ids
        if platform == "ios" or platform == "tvos":
            ids["ios_idfv"] = uuid_text(rng).upper()
        elif platform == "android":
            ids["android_uuid"] = f"{rng.getrandbits(64):016x}"
        elif platform == "roku":
            ids["roku_aid"] = uuid_text(rng)
            ids["roku_publisher_id"] = uuid_text(rng)
        if kind == "phone":
            self._ad_id(device)
        if platform == "android":
            ids["push_token"] = f"{rng.getrandbits(256):064x}"
        ids["device_application_stamp"] = uuid_text(rng)
        return device

    def _ad_id(self, device: Device) -> None:
        rng, world = self.rng, self.world
        name = "ios_idfa" if device.platform == "ios" else "android_aaid"
        if rng.random() < world.ad_id_allowed:
            value = uuid_text(rng)
            device.ids[name] = value.upper() if device.platform == "ios" else value
        elif rng.random() < world.zero_ad_id:
            device.ids[name] = ZERO_ID

    def reset_ad_id(self, device: Device) -> None:
        """Give the phone a new advertising id, if it gives one to the app at all."""
        for name in ("ios_idfa", "android_aaid"):
            if device.ids.get(name) not in (None, ZERO_ID):
                value = uuid_text(self.rng)
                fresh = value.upper() if name == "ios_idfa" else value
                device.ids = device.ids | {name: fresh}
