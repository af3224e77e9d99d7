"""What the pages are made of: brought and made with the first request for one of them."""

from __future__ import annotations

import functools
from collections.abc import Callable

from onymous.app import Core
from onymous.console.app import console_app
from onymous.console.site import Rooms
from onymous.flows.aliases import request_alias
from onymous.flows.detaching import Detaching
from onymous.flows.finding import Finder
from onymous.flows.former import former_names
from onymous.flows.live import Live
from onymous.flows.people import People
from onymous.flows.rules_asked import Rules
from onymous.flows.scope_log import changes
from onymous.flows.ties import Ties
from onymous.flows.timeline import Timeline
from onymous.flows.versions import version, versions
from onymous.web.server import Asgi


async def console(
    core: Core, ending: Callable[[], bool], address: Callable[[str, str], str]
) -> Asgi:
    """Return the pages of a started core, for paths under /console."""
    people = People(core.store, core.key)
    timeline = Timeline(core.store, core.historian, core.directory, core.bodies)
    rooms = Rooms(
        people=people,
        directory=core.directory,
        profiles=core.profiles,
        timeline=timeline,
        finder=Finder(core.store, core.resolver),
        ties=Ties(core.store, core.mpids),
        live=Live(core.store, core.historian, timeline),
        merging=core.merging,
        undoing=core.undoing,
        detaching=Detaching(core.resolver, core.store),
        former=functools.partial(former_names, core.store, core.historian),
        alias=functools.partial(request_alias, core.resolver, core.store),
        explain=core.explainer.explain,
        review=core.review,
        versions=functools.partial(versions, core.store),
        version=functools.partial(version, core.store),
        scope_changes=functools.partial(changes, core.store),
        rules=Rules(core.store),
        ending=ending,
        address=address,
    )
    return console_app(rooms, await people.signing_key())
