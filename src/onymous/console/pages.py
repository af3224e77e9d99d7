"""Searching, the page of a person, a batch, the audit."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from starlette.responses import JSONResponse, Response

from onymous.console.filters import Asked, asked, choices, reread, wanted
from onymous.console.masking import masked_json
from onymous.console.site import HEADERS, Place, Problem, Site, Visit
from onymous.console.view import (
    Shown,
    former_of,
    names_of,
    timeline_of,
    told,
    workspaces_of,
    worth_of,
)
from onymous.console.words import label
from onymous.flows.finding import Hit
from onymous.flows.whose import Whose
from onymous.rules.identity_types import TYPES
from onymous.rules.masking import mask

MOST_QUERY, MOST_REASON = 256, 500
#: what the search calls the id of a request
REQUEST = "request"
#: entries of the audit on one page
_AUDITS = 100
#: a second look at the same person within this is not written down again
_VIEW_MS, _VIEWS = 10 * 60_000, 4_096


class Pages:
    """GET pages and what they post: search and reveal."""

    def __init__(self, site: Site) -> None:
        self._site, self._rooms = site, site.rooms
        #: (user, pool, MPID) -> when a view was written down last
        self._views: dict[tuple[int, int, str], int] = {}

    async def search(self, visit: Visit) -> Response:
        """Show the search, or the people found; one of them at once."""
        place = visit.place
        if visit.request.method != "POST":
            latest = await self._rooms.live.latest(place.pool, 12)
            shown = Shown(self._site.handles, "", frozenset())
            recent = [
                {**told(a.change, shown), "at": a.at_ms, "mpid": a.mpid}
                for a in latest
                if a.change is not None
            ]
            return visit.page("search.html", recent=recent, hits=None, kind="", types=_types())
        text, kind = visit.form.get("q", "").strip(), visit.form.get("type", "")
        if not text or len(text) > MOST_QUERY:
            raise Problem(400, "Nothing to search for", "Type an identity or an MPID.")
        if kind == REQUEST:
            return await self.request(visit, text)
        hits = await self._rooms.finder.find(place.caller.plan, place.pool, text, kind)
        if len(hits) == 1:
            return self._site.redirect(f"{place.path}/person/{hits[0].mpid}")
        return visit.page(
            "search.html",
            recent=[],
            hits=[_hit(hit) for hit in hits],
            kind=kind,
            types=_types(),
        )

    async def person(self, visit: Visit) -> Response:
        """Show a person."""
        mpid = visit.request.path_params["mpid"]
        query = visit.request.query_params
        filters = asked(query)
        model, _ = await self._model(visit, filters, frozenset())
        if model["view"].mpid != mpid:
            return self._site.redirect(f"{visit.place.path}/person/{model['view'].mpid}?was={mpid}")
        if filters == Asked():
            await self._seen(visit, mpid)
        was = query.get("was", "")
        model["was"] = was if self._rooms.finder.number(was) is not None else ""
        return visit.page("person.html", **model)

    async def reveal(self, visit: Visit) -> Response:
        """Show values in full, and write down who looked."""
        visit.need("reveal")
        values = frozenset({visit.form.get("value", "")}) - {""}
        model, shown = await self._model(visit, reread(visit.form.get("asked", "")), values)
        found = shown.revealed
        if not found:
            raise Problem(404, "Nothing to reveal", "The value has changed. Reload the page.")
        mpid = model["view"].mpid
        for field in sorted({field for field, _ in found.values()}):
            await self._looked(visit, mpid, field)
        if "json" in visit.request.headers.get("accept", ""):
            return JSONResponse({h: value for h, (_, value) in found.items()}, headers=HEADERS)
        return visit.page("person.html", **model, was="")

    async def batch(self, visit: Visit) -> Response:
        """Show what a batch said, masked; a POST shows it in full and is written down."""
        params = visit.request.path_params
        view = await self._view(visit, params["mpid"])
        number = params["batch"] if params["batch"] < 1 << 62 else 0
        found = await self._rooms.timeline.batch(view.pid, number, visit.now_ms)
        if found is None:
            raise Problem(404, "No such batch", "It does not exist, or is not this person's.")
        sent, content = found
        clear = visit.request.method == "POST"
        if clear:
            visit.need("reveal")
            await self._looked(visit, view.mpid, f"batch {number}")
        body = content if clear else masked_json(content)
        text = json.dumps(body, indent=2, ensure_ascii=False)
        return visit.page("batch.html", mpid=view.mpid, sent=sent, text=text, clear=clear)

    async def request(self, visit: Visit, request_id: str) -> Response:
        """Tell what a request was answered and why, also one that changed nothing."""
        place = visit.place
        told = await self._rooms.explain(place.caller, place.environment, request_id, Whose())
        entry = int(told.entries[0].entry) if told.entries else 0
        return visit.page("why.html", told=told, mpid=told.mpid or "", entry=entry)

    async def why(self, visit: Visit) -> Response:
        """Tell the decision behind an entry again, step by step; it names no values."""
        params, place = visit.request.path_params, visit.place
        await self._view(visit, params["mpid"])
        pid, text = self._rooms.finder.number(params["mpid"]), str(params["number"])
        entry = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
        request, sender = "", 0
        if pid is not None:
            request, sender = await self._rooms.timeline.request(pid, entry)
        if not request:
            raise Problem(
                404, "No request stands behind this", "It was made by hand, or without an id."
            )
        whose = Whose(number=sender)
        told = await self._rooms.explain(place.caller, place.environment, request, whose)
        return visit.page("why.html", told=told, mpid=params["mpid"], entry=entry)

    async def audit(self, visit: Visit) -> Response:
        """Show who did what, to administrators."""
        visit.need("audit")
        if visit.user.scopes:
            why = "It tells of all scopes, and some are not open to you."
            raise Problem(403, "The audit is not open to you", why)
        text = visit.request.query_params.get("before", "")
        before = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
        of = visit.request.query_params.get("of", "")
        of = of if self._rooms.finder.number(of) is not None else ""
        rows, older = await self._rooms.ties.audit(before, _AUDITS, of)
        entries = [
            {
                "at": row.at_ms,
                "actor": row.actor,
                "action": row.action,
                "subject": row.subject,
                "detail": ", ".join(f"{k}: {_plain(v)}" for k, v in row.detail.items()),
            }
            for row in rows
        ]
        return visit.page("audit.html", rows=entries, older=older, of=of)

    async def _view(self, visit: Visit, mpid: object) -> Any:
        """Return the profile of an MPID in the place looked at; raises `Problem`."""
        pid = self._rooms.finder.number(mpid)
        place = visit.place
        view = None
        if pid is not None:
            view = await self._rooms.profiles.profile(place.pool, pid, visit.now_ms)
        if view is None:
            raise Problem(
                404,
                "Nobody has this MPID here",
                f"It is not known in scope {place.scope_name}, {place.environment}. It may belong"
                " to another scope or environment, or have been erased.",
            )
        return view

    async def _model(
        self, visit: Visit, filters: Asked, values: frozenset[str]
    ) -> tuple[dict[str, Any], Shown]:
        """Return everything the page of a person shows."""
        view = await self._view(visit, visit.request.path_params["mpid"])
        handles, names, place = self._site.handles, self._rooms.directory.names, visit.place
        items, older = await self._rooms.timeline.page(
            view.pid, visit.now_ms, before=filters.before, wanted=wanted(filters, view, handles)
        )
        aliases, merges = await self._rooms.ties.of(place.pool, view.pid)
        former = await self._rooms.former(place.pool, view.pid, visit.now_ms)
        shown = Shown(handles, view.mpid, values)
        model = {
            "view": view,
            "last_seen": max(view.last_seen_ms, await self._rooms.finder.last_seen(view.pid)),
            "names": names_of(view, shown, names),
            "former": former_of(former, shown),
            "workspaces": workspaces_of(view, shown, names),
            "worth": worth_of(view, names),
            "timeline": timeline_of(items, shown, view.mpid),
            "aliases": aliases,
            "merges": merges,
            "asked": filters,
            "choices": choices(filters, view, handles, names),
            "older": older,
            "aliasable": place.caller.plan.strategy.alias,
            "mergeable": place.caller.plan.strategy.merge,
        }
        return model, shown

    async def _seen(self, visit: Visit, mpid: str) -> None:
        """Write down who looked at whom, once in a while: reloading says nothing new."""
        key, now = (visit.user.id, visit.place.pool, mpid), visit.now_ms
        last = self._views.pop(key, 0)
        if now - last > _VIEW_MS:
            place = visit.place
            detail = {"scope": place.scope_name, "environment": place.environment}
            await self._rooms.people.note(visit.user, "view", mpid, detail)
            last = now
        self._views[key] = last
        if len(self._views) > _VIEWS:
            del self._views[next(iter(self._views))]

    async def _looked(self, visit: Visit, mpid: str, field: str) -> None:
        place: Place = visit.place
        detail = {"field": field, "scope": place.scope_name, "environment": place.environment}
        await self._rooms.people.note(visit.user, "reveal", mpid, detail)


def _types() -> list[tuple[str, str]]:
    return [("mpid", "MPID"), *((t.name, t.label) for t in TYPES), (REQUEST, "Request id: why?")]


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "mpid": hit.mpid,
        "matched": [label(m) for m in hit.matched_on],
        "known": hit.known,
        "orphaned": hit.orphaned,
        "created": hit.created_ms,
        "names": [(label(kind), mask(value)) for kind, value in hit.names[:4]],
        "more": max(0, len(hit.names) - 4),
    }


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
