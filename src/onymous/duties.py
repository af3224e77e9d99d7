"""Which promised jobs there are, and what does them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from onymous.apart import apart
from onymous.flows.changes import publish
from onymous.flows.fencing import end_left_over
from onymous.flows.jobs import Handler, Together
from onymous.flows.journal import erase_from_journal
from onymous.flows.rules_asked import JOB as UNDO_RULES
from onymous.flows.scope_changes import do_scope_change
from onymous.flows.tombstones import JOB, JOB_ALL, keep_promise, remember_all

if TYPE_CHECKING:
    from onymous.app import Core


def handlers(core: Core) -> dict[str, Handler]:
    """Return what does jobs one by one."""

    async def drain(body: bytes) -> None:
        await core.spool.drain()

    async def forget(body: bytes) -> None:
        await core.spool.erase(body)
        await erase_from_journal(core.store, core.journal, body)

    async def remember(body: bytes) -> None:
        await keep_promise(core.tombstones, body)

    async def remember_erased(body: bytes) -> None:
        await remember_all(core.store, core.tombstones)

    async def go_over(body: bytes) -> None:
        await do_scope_change(core.store, core.scopes, body)

    return {
        "scope_change": go_over,
        "drain_spool": drain,
        "journal_erase": forget,
        JOB: remember,
        JOB_ALL: remember_erased,
    }


def together(core: Core) -> dict[str, Together]:
    """Return what does all due jobs of a kind at once."""

    async def changed(bodies: list[bytes]) -> None:
        readable = core.settings.change_feed_table
        await publish(core.store, bodies, core.historian if readable else None)

    return {"identity_changed": changed}


def slow(core: Core) -> dict[str, Handler]:
    """Return what does jobs that take minutes: in processes of their own."""

    async def undo_rules(body: bytes) -> None:
        number = msgspec.msgpack.decode(body, type=int)
        try:
            await apart(core.settings, "undo_rules", str(number), str(core.grace_s))
        finally:
            await end_left_over(core.store)  # where it was killed
            await core.directory.refresh_if_changed()

    return {UNDO_RULES: undo_rules}
