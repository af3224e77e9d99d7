"""How the simulated people live: every rate of the simulation as a named field, and presets.

Standard library only. A rate is a share between 0 and 1; the docstring of each field says of what.
"""

from dataclasses import dataclass

DAY_MS = 86_400_000
"""One day in milliseconds."""


@dataclass(frozen=True, slots=True)
class World:
    """One kind of customer base. Immutable; build another with `dataclasses.replace`.

    Rates are not checked here; `simulate` refuses a world with a rate outside 0..1.
    """

    # -- who lives together -------------------------------------------------------------------
    household_sizes: tuple[float, ...] = (0.38, 0.32, 0.14, 0.11, 0.05)
    """Weights of households of 1, 2, 3 ... people (in a business world: people of one company)."""
    shared_tv: float = 0.25
    """Share of households of two and more with one television app used by everybody."""
    shared_tablet: float = 0.30
    """Share of households of two and more with one tablet used by everybody."""
    family_email: float = 0.04
    """Share of households of two and more in which all accounts carry one e-mail address."""

    # -- what people own ----------------------------------------------------------------------
    own_phone: float = 0.65
    """Share of people with the app on a phone of their own; everybody has a browser."""
    ios_share: float = 0.50
    """Share of phones that run iOS; the others run Android."""
    ad_id_allowed: float = 0.45
    """Share of phones that give the app their advertising id."""
    zero_ad_id: float = 0.50
    """Share of the other phones whose app sends the all-zero id in its place."""
    replaces_phone: float = 0.004
    """Chance per visit by phone that it is the first one on a new phone."""
    hand_down: float = 0.35
    """Share of replaced phones, in households of two and more, that a housemate uses next: the
    app is installed anew, the ids of the device itself stay."""
    resets_ad_id: float = 0.002
    """Chance per visit by phone that its advertising id was reset before."""
    loses_cookies: float = 0.05
    """Chance per visit by browser that its cookies, and so the device stamp, were lost before."""

    # -- where and when they come -------------------------------------------------------------
    visits_per_day: float = 0.4
    """Mean visits of one person per day; sets the pace of the clock only."""
    activity_skew: float = 1.6
    """1: all people come equally often; larger: some come much more often than others."""
    phone_visits: float = 0.55
    """Share of the visits with one's own things that are made by phone, if there is one."""
    shared_visits: float = 0.15
    """Share of visits made with a shared thing of the household, if there is one."""
    kiosk_visits: float = 0.01
    """Share of visits made at a public kiosk, used by very many people."""
    people_per_kiosk: int = 20_000
    """One kiosk for so many people; there is at least one."""

    # -- accounts -----------------------------------------------------------------------------
    never_registers: float = 0.35
    """Share of people who never open an account."""
    known_before: float = 0.20
    """Share of the others who are in the CRM before their first visit (a store, a phone call)."""
    registers: float = 0.10
    """Chance per visit that somebody who will have an account opens it."""
    logs_in: float = 0.35
    """Chance per visit that somebody with an account, not signed in there, logs in."""
    logs_out_own: float = 0.06
    """Chance per signed-in visit with one's own thing that it ends with a logout."""
    logs_out_shared: float = 0.60
    """The same with a shared thing. At a kiosk everybody logs out."""
    switches_directly: float = 0.30
    """Where somebody else is signed in: share of account holders who log in over them, without a
    logout between. All others log the other one out first."""
    email_only_login: float = 0.08
    """Share of logins that carry the e-mail address and no customer id."""
    login_phone: float = 0.40
    """Share of logins that carry the phone number too, once it is on the account."""
    guest_email: float = 0.03
    """Chance per visit, not signed in, with one's own thing, that an e-mail is left without a
    login (newsletter, order as a guest)."""
    second_email: float = 0.10
    """Share of people with a second e-mail address, which only they know to be theirs."""
    uses_second_email: float = 0.40
    """Share of their guest e-mails that are the second address."""
    odd_spelling: float = 0.02
    """Chance that an e-mail address is written with capitals and a blank behind it."""
    changes_email: float = 0.006
    """Chance per signed-in visit that the e-mail of the account is changed."""
    adds_phone: float = 0.03
    """Chance per signed-in visit that a phone number is added, while there is none."""

    # -- the CRM ------------------------------------------------------------------------------
    crm_feed: float = 0.12
    """Share of arrivals that are a CRM row in place of a visit (none if nobody has an account)."""
    crm_phone: float = 0.50
    """Share of CRM rows that carry the phone number, where there is one."""

    # -- bad data and bad networks ------------------------------------------------------------
    junk: float = 0.02
    """Chance per request without a signed-in user that it carries "null", "undefined", an empty
    text or the like as an identity."""
    placeholder_apps: float = 0.01
    """Share of browsers and phones with a faulty version that sends one customer id for everybody
    who is not signed in."""
    placeholder_customer_id: str = "guest"
    """That customer id. Put it on the block list of the scope, as a real operator must."""
    late: float = 0.02
    """Share of visits by phone made offline: their requests arrive hours later, in order."""
    repeats: float = 0.01
    """Share of requests sent a second time, with the same request id and body."""

    start_ms: int = 1_735_689_600_000
    """When the simulation begins, milliseconds since 1970 (default: 2025-01-01 UTC)."""


PRESETS: dict[str, World] = {
    "retail": World(),
    "media": World(
        never_registers=0.70,
        known_before=0.02,
        visits_per_day=1.5,
        loses_cookies=0.10,
        logs_in=0.20,
        registers=0.04,
        crm_feed=0.03,
        kiosk_visits=0.0,
        guest_email=0.05,
        shared_tablet=0.40,
    ),
    "family_tv": World(
        household_sizes=(0.12, 0.25, 0.24, 0.26, 0.13),
        shared_tv=0.90,
        shared_tablet=0.50,
        family_email=0.12,
        shared_visits=0.60,
        never_registers=0.20,
        visits_per_day=2.0,
        logs_out_shared=0.25,
        switches_directly=0.70,
        crm_feed=0.04,
        kiosk_visits=0.0,
    ),
    "b2b": World(
        household_sizes=(0.05, 0.10, 0.15, 0.20, 0.15, 0.10, 0.10, 0.05, 0.05, 0.05),
        shared_tv=0.0,
        shared_tablet=0.25,
        family_email=0.15,
        own_phone=0.20,
        never_registers=0.10,
        known_before=0.60,
        visits_per_day=0.8,
        logs_in=0.60,
        crm_feed=0.30,
        kiosk_visits=0.02,
        second_email=0.20,
        hand_down=0.10,
    ),
}
"""Worlds by name: `retail` (a shop, the default), `media` (mostly readers without an account),
`family_tv` (streaming on shared screens), `b2b` (companies, a strong CRM, shared mailboxes)."""
