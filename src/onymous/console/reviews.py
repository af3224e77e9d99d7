"""The review: what was held back, looked at one by one, accepted or refused with a reason."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from onymous.console.actions import actor_of, reason_of
from onymous.console.site import Problem, Site, Visit
from onymous.console.words import label
from onymous.flows.review import Decided, Pools, Shown, Waiting
from onymous.rules.errors import BeingDecided, NotFound, Refusal
from onymous.rules.masking import mask

#: entries on a page
MOST = 50
_REASONS = {
    "stale_value": "the profile has another value, and the request may not replace it",
    "profile_full": "the profile holds as many values as it may",
    "conflict": "these identities belong to several people",
}
_DONE = {"accepted": "Accepted.", "refused": "Refused: the same does not come back."}


class Reviews:
    """GET pages of the queue and its entries, and what they post."""

    def __init__(self, site: Site) -> None:
        self._site, self._review = site, site.rooms.review

    async def page(self, visit: Visit) -> Response:
        """List what waits: types and MPIDs, never values."""
        query = visit.request.query_params
        after = query.get("after", "") or None
        try:
            found, more = await self._review.page(_pools(visit), after, MOST)
        except NotFound:
            found, more = await self._review.page(_pools(visit), None, MOST)
        return visit.page(
            "review.html",
            rows=[_listed(w) for w in found],
            more=more,
            after=after,
            done=_DONE.get(query.get("done", ""), ""),
        )

    async def entry(self, visit: Visit) -> Response:
        """Show one entry, masked; a POST shows it in full and is written down."""
        clear = visit.request.method == "POST"
        if clear:
            visit.need("reveal")
        return await self._entry(visit, clear)

    async def accept(self, visit: Visit) -> Response:
        """Do what was held back."""
        return await self._decide(visit, "accepted")

    async def refuse(self, visit: Visit) -> Response:
        """Take an entry off the queue for good."""
        return await self._decide(visit, "refused")

    async def _decide(self, visit: Visit, what: str) -> Response:
        visit.need("merge")
        if not reason_of(visit):
            return await self._entry(visit, False, "Say why: whoever looks at this later needs it.")
        try:
            await self._decided(visit, what)
        except BeingDecided as refusal:
            raise _gone() from refusal
        except NotFound:
            raise _gone() from None
        except Refusal as refusal:
            text = f"Nothing was changed. {refusal.message} {refusal.hint}"
            return await self._entry(visit, False, text, refusal.status)
        return self._site.redirect(f"{visit.place.path}/review?done={what}")

    async def _decided(self, visit: Visit, what: str) -> Decided:
        pools, entry, actor = _pools(visit), _entry(visit), actor_of(visit)
        if what == "refused":
            return await self._review.refuse(pools, entry, actor)
        return await self._review.accept(pools, entry, actor, visit.form.get("into", ""))

    async def _entry(
        self, visit: Visit, clear: bool, error: str = "", status: int = 400
    ) -> Response:
        try:
            shown = await self._review.show(_pools(visit), _entry(visit))
        except NotFound:
            raise _gone() from None
        if clear:
            for mpid in shown.mpids:
                place = visit.place
                detail = {
                    "field": f"review {shown.id}",
                    "scope": place.scope_name,
                    "environment": place.environment,
                }
                await self._site.rooms.people.note(visit.user, "reveal", mpid, detail)
        return visit.page(
            "review_entry.html",
            status if error else 200,
            entry=_listed(shown),
            values=_values(shown, clear),
            clear=clear,
            error=error,
            reason=visit.form.get("reason", "")[:500],
            into=visit.form.get("into", "") or shown.mpids[0],
            mergeable=visit.place.caller.plan.strategy.merge,
        )


def _pools(visit: Visit) -> Pools:
    pool = visit.place.pool
    return pool, pool


def _entry(visit: Visit) -> str:
    return str(visit.request.path_params["entry"])


def _gone() -> Problem:
    return Problem(
        404,
        "This does not wait any more",
        "Somebody else decides it or has decided it, or it is old.",
    )


def _listed(w: Waiting) -> dict[str, Any]:
    return {
        "id": w.id,
        "kind": w.kind,
        "why": _REASONS.get(w.reason, w.reason.replace("_", " ")),
        "types": [label(name) for name in w.types],
        "mpids": w.mpids,
        "input": w.input,
        "first": w.first_ms,
        "last": w.last_ms,
        "count": w.count,
        "key_only": w.key_only,
        "request": w.request_id,
        "operation": w.operation,
    }


def _values(shown: Shown, clear: bool) -> list[dict[str, Any]]:
    """Return each value held back beside what every person has of its type now."""

    def told(text: str) -> str:
        return text if clear else mask(text)

    return [
        {
            "label": label(kind),
            "text": told(value),
            "now": [
                [{"text": told(v), "same": v == value} for v in shown.now[mpid].get(kind, [])]
                for mpid in shown.mpids
            ],
        }
        for kind, value in shown.values.items()
    ]
