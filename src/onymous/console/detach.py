"""Taking one name away from a person by hand: seen first, with a reason."""

from __future__ import annotations

from starlette.responses import Response

from onymous.console.actions import actor_of, reason_of
from onymous.console.site import Problem, Site, Visit
from onymous.console.view import Shown, names_of
from onymous.console.words import label
from onymous.rules.masking import mask


class Detach:
    """POST detach: shows what it does; with a reason it does it."""

    def __init__(self, site: Site) -> None:
        self._site, self._rooms = site, site.rooms

    async def page(self, visit: Visit) -> Response:
        """Take a name away, or show what that means."""
        visit.need("merge")
        place, reason = visit.place, reason_of(visit)
        pid, name = await self._name(visit)
        done = await self._rooms.detaching.detach(
            place.caller.plan, place.pool, pid, name, actor_of(visit), dry_run=not reason
        )
        mpid = visit.request.path_params["mpid"]
        if reason:
            return self._site.redirect(f"{place.path}/person/{mpid}#timeline")
        return visit.page(
            "detach.html",
            mpid=mpid,
            handle=visit.form.get("value", ""),
            label=label(done.identity_type),
            text=mask(done.value),
            done=done,
            tried=visit.form.get("confirmed") == "yes",
        )

    async def _name(self, visit: Visit) -> tuple[int, tuple[str, str]]:
        """Return the person's number and the name (type, value) a handle stands for."""
        place, pid = visit.place, self._rooms.finder.number(visit.request.path_params["mpid"])
        view = None
        if pid is not None:
            view = await self._rooms.profiles.profile(place.pool, pid, visit.now_ms)
        if view is None:
            raise Problem(404, "Nobody has this MPID here", "Search for the person again.")
        handle = visit.form.get("value", "")
        shown = Shown(self._site.handles, view.mpid, frozenset({handle}) - {"", "all-names"})
        names_of(view, shown, self._rooms.directory.names)
        if len(shown.revealed) != 1:
            raise Problem(404, "This name has changed", "Reload the page of the person.")
        return view.pid, shown.revealed[handle]
