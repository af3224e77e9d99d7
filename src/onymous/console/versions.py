"""Versions of the configuration: what changed, by whom and why; changes of rules undone."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from onymous.console.actions import reason_of
from onymous.console.site import Problem, Site, Visit
from onymous.flows.versions import Author, Version, difference
from onymous.rules.errors import DependsOn, NoSuchVersion

#: versions on a page
MOST = 50


class Versions:
    """Pages of the versions; administrators of all scopes see them."""

    def __init__(self, site: Site) -> None:
        self._site, self._rooms = site, site.rooms

    async def page(self, visit: Visit) -> Response:
        """List versions, newest first."""
        _may(visit)
        before = _number(visit.request.query_params.get("before", ""))
        found = await self._rooms.versions(before or None, MOST + 1)
        older = found[MOST - 1].version if len(found) > MOST else 0
        rules = [] if before else await self._rooms.rules.all()
        # the newest of each scope that stands
        newest = {r.scope: r.id for r in reversed(rules) if r.state != "undone"}
        can = {r.id for r in rules if r.state == "standing"} & {*newest.values()}
        return visit.page(
            "versions.html",
            rows=found[:MOST],
            older=older,
            first=not before,
            scopes=[] if before else await self._rooms.scope_changes(),
            rules=rules,
            newest=can,
            done="asked" in visit.request.query_params,
        )

    async def version(self, visit: Visit) -> Response:
        """Show what a version changed against the one before it, or against another one."""
        _may(visit)
        number = int(visit.request.path_params["number"])
        against = _number(visit.request.query_params.get("against", "")) or number - 1
        this = await self._one(number)
        other = await self._one(against) if against else None
        names = (f"version {against}" if against else "nothing", f"version {number}")
        old = (other.document if other is not None else "") or ""
        lines = [_line(text) for text in difference(old, this.document or "", names)[2:]]
        newest = (await self._rooms.versions(None, 1))[0].version
        return visit.page(
            "version.html",
            this=this,
            against=against,
            lines=lines,
            newest=newest,
        )

    async def undo_rules(self, visit: Visit) -> Response:
        """Undo a change of rules; shows what would change and asks for the reason first."""
        _may(visit)
        number, reason = int(visit.request.path_params["number"]), reason_of(visit)
        keep_later = visit.form.get("keep_later") == "yes"
        if reason:
            author = Author(name=f"console/{visit.user.name}", reason=reason)
            now_ms = visit.now_ms
            await self._rooms.rules.undo(number, author, now_ms, keep_later=keep_later)
            return self._site.redirect("/console/versions?asked#carried-h")
        seen, depends = dict[str, int](), ""
        try:
            seen = await self._rooms.rules.look(number, keep_later=keep_later)
        except DependsOn as refusal:
            depends = refusal.message
        return visit.page(
            "undo_rules.html",
            change=await self._rooms.rules.one(number),
            seen=seen,
            depends=depends,
            keep_later=keep_later,
            tried=visit.form.get("confirmed") == "yes",
        )

    async def _one(self, number: int) -> Version:
        try:
            return await self._rooms.version(number)
        except NoSuchVersion as refusal:
            raise Problem(404, refusal.message, "Choose one of the list.") from None


def _line(text: str) -> dict[str, Any]:
    kind = {"+": "new", "-": "old", "@": "where"}.get(text[:1], "")
    return {"kind": kind, "sign": text[:1] if kind in ("new", "old") else " ", "text": text[1:]}


def _may(visit: Visit) -> None:
    visit.need("audit")
    if visit.user.scopes:
        why = "It tells of all scopes, and some are not open to you."
        raise Problem(403, "The configuration is not open to you", why)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
