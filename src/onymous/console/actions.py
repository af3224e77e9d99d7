"""Merging two profiles after a preview; undoing merges and aliases."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
from starlette.responses import Response

from onymous.console.site import Problem, Site, Visit
from onymous.console.words import label
from onymous.flows.aliases import AliasRequest
from onymous.flows.answers import Question
from onymous.flows.merging import Actor
from onymous.rules.aliases import window
from onymous.rules.errors import UnknownMpid
from onymous.rules.masking import mask

MOST_REASON = 500


class Actions:
    """What people change by hand; every one of these is a POST, with a reason, and audited."""

    def __init__(self, site: Site) -> None:
        self._site, self._rooms = site, site.rooms

    async def preview(self, visit: Visit) -> Response:
        """Show what a merge would make; changes nothing."""
        visit.need("merge")
        return await self._preview(visit, "")

    async def merge(self, visit: Visit) -> Response:
        """Merge two profiles."""
        visit.need("merge")
        if not reason_of(visit):
            return await self._preview(visit, "Say why: whoever looks at this later needs it.")
        place = visit.place
        source, destination = _both(visit)
        done = await self._rooms.merging.merge(
            place.caller.plan, place.pool, source, destination, actor_of(visit)
        )
        return self._site.redirect(f"{place.path}/person/{done.destination}?done=merged#ties")

    async def undo_merge(self, visit: Visit) -> Response:
        """Undo a merge; asks for the reason first."""
        visit.need("merge")
        number, mpid = _number(visit), visit.request.path_params["mpid"]
        if not reason_of(visit):
            return await self._ask(visit, "merge", number, mpid)
        await self._rooms.merging.undo_merge(visit.place.pool, number, actor_of(visit))
        return self._site.redirect(f"{visit.place.path}/person/{mpid}?done=unmerged#ties")

    async def undo_alias(self, visit: Visit) -> Response:
        """Undo an alias; asks for the reason first."""
        visit.need("merge")
        number, mpid = _number(visit), visit.request.path_params["mpid"]
        if not reason_of(visit):
            return await self._ask(visit, "alias", number, mpid)
        await self._rooms.merging.undo_alias(visit.place.pool, number, actor_of(visit))
        return self._site.redirect(f"{visit.place.path}/person/{mpid}?done=unaliased#ties")

    async def _ask(self, visit: Visit, what: str, number: int, mpid: str) -> Response:
        """Show what an undo would take away, and ask why."""
        pid = self._rooms.finder.number(mpid)
        if pid is None:
            raise Problem(404, "Nobody has this MPID here", "Search for the person again.")
        aliases, merges = await self._rooms.ties.of(visit.place.pool, pid)
        found: list[Any] = [t for t in (merges if what == "merge" else aliases) if t.id == number]
        if not found:
            raise Problem(404, "Nothing to undo", "It does not exist, or is undone already.")
        source = self._rooms.finder.number(found[0].source) or 0
        window = (found[0].start_ms, found[0].end_ms) if what == "alias" else (0, 1 << 62)
        worth, batches = await self._rooms.ties.brought(source, *window)
        return visit.page(
            "undo.html",
            what=what,
            tie=found[0],
            mpid=mpid,
            worth=worth,
            batches=batches,
            tried=visit.form.get("confirmed") == "yes",
        )

    async def _preview(self, visit: Visit, error: str) -> Response:
        place = visit.place
        source, destination = _both(visit)
        seen = await self._rooms.merging.preview(place.caller.plan, place.pool, source, destination)
        differing = [
            {
                "workspace": self._rooms.directory.names.workspace(d.workspace),
                "name": d.name,
                "shown": _masked(d.shown),
                "hidden": _masked(d.hidden),
            }
            for d in seen.differing
        ]
        return visit.page(
            "merge.html",
            400 if error else 200,
            seen=seen,
            names=[(label(kind), mask(value)) for kind, value in seen.names],
            differing=differing,
            error=error,
        )

    async def undo_entry(self, visit: Visit) -> Response:
        """Undo one identity change; shows what would change and asks for the reason first."""
        visit.need("merge")
        number, mpid = _number(visit), visit.request.path_params["mpid"]
        place, reason = visit.place, reason_of(visit)
        answer = await self._rooms.undoing.undo(
            place.caller.plan, place.pool, mpid, number, actor_of(visit), dry_run=not reason
        )
        if reason:
            return self._site.redirect(f"{place.path}/person/{mpid}#timeline")
        changes = [
            {
                "word": c.change.replace("_", " "),
                "label": label(c.identity_type),
                "text": mask(c.value),
                "mpid": c.mpid or "",
            }
            for c in answer.changes
        ]
        tried = visit.form.get("confirmed") == "yes"
        return visit.page("undo_entry.html", changes=changes, number=number, mpid=mpid, tried=tried)

    async def alias(self, visit: Visit) -> Response:
        """Let a profile's history count for another one; shows what it brings first."""
        visit.need("merge")
        place, reason = visit.place, reason_of(visit)
        source, destination = _both(visit)
        start, end = (_time(visit.form.get(name, "")) for name in ("start", "end"))
        preview = await self._alias_preview(visit, source, destination, (start, end))
        if not reason:
            return preview
        # in nobody's name: number 0 is this server itself
        caller = msgspec.structs.replace(place.caller, input=0, workspace=0)
        question = Question(
            op="alias",
            caller=caller,
            environment=place.environment,
            known={},
            now_ms=visit.now_ms,
        )
        wanted = AliasRequest(
            source_mpid=source,
            destination_mpid=destination,
            start_unixtime_ms=start,
            end_unixtime_ms=end,
        )
        answer = await self._rooms.alias(question, wanted)
        if answer.refusal is not None:
            raise answer.refusal
        detail = {"source": source, "outcome": answer.outcome, "reason": reason}
        await self._rooms.people.note(visit.user, "alias", destination, detail)
        if answer.outcome != "applied":
            why = str(answer.reason).replace("_", " ")
            raise Problem(409, "The alias was rejected", f"Nothing changed: {why}.")
        return self._site.redirect(f"{place.path}/person/{destination}#ties")

    async def _alias_preview(
        self,
        visit: Visit,
        source: str,
        destination: str,
        wanted: tuple[int | None, int | None],
    ) -> Response:
        place = visit.place
        pids = [self._rooms.finder.number(mpid) for mpid in (source, destination)]
        views = [
            await self._rooms.profiles.profile(place.pool, pid, visit.now_ms)
            for pid in pids
            if pid is not None
        ]
        if len(views) < 2 or pids[0] is None or any(view is None for view in views):
            raise UnknownMpid()
        if len({view.pid for view in views if view is not None}) == 1:
            raise Problem(409, "They are one person already", "Their history counts here.")
        start, end = window(*wanted, visit.now_ms, place.caller.plan)
        worth, batches = await self._rooms.ties.brought(pids[0], start, end)
        return visit.page(
            "alias.html",
            source=source,
            destination=destination,
            start=start,
            end=end,
            given=[visit.form.get(name, "") for name in ("start", "end")],
            worth=worth,
            batches=batches,
            tried=visit.form.get("confirmed") == "yes",
        )


def actor_of(visit: Visit) -> Actor:
    """Return who does something by hand, and why."""
    return Actor(name=f"console/{visit.user.name}", reason=reason_of(visit), now_ms=visit.now_ms)


def _both(visit: Visit) -> tuple[str, str]:
    """Return (source, destination); `turn` swaps them."""
    source, destination = visit.form.get("source", "").strip(), visit.form.get("destination", "")
    if visit.form.get("turn") == "yes":
        return destination, source
    return source, destination


def _time(text: str) -> int | None:
    """Return the time of a field in UTC, or None for an empty one."""
    if not text:
        return None
    try:
        at = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
    except ValueError:
        raise Problem(400, "This is no time", "Write it like 2026-11-24T08:30.") from None
    return int(at.timestamp() * 1000)


def reason_of(visit: Visit) -> str:
    """Return the reason of a form, empty where there is none; raises `Problem` for a bad one."""
    reason = visit.form.get("reason", "").strip()
    if len(reason) > MOST_REASON or not reason.isprintable():
        raise Problem(400, "The reason is too long", f"At most {MOST_REASON} characters, one line.")
    return reason


def _number(visit: Visit) -> int:
    text = str(visit.request.path_params["number"])
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Problem(404, "Nothing to undo", "It does not exist, or is undone already.")
    return int(text)


def _masked(value: str | list[str] | None) -> str:
    if value is None:
        return "(tag)"
    return ", ".join(mask(v) for v in value) if isinstance(value, list) else mask(value)
