"""The console as an ASGI application of its own; paths begin with /console."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from onymous.console.actions import Actions
from onymous.console.detach import Detach
from onymous.console.doors import Doors
from onymous.console.pages import Pages
from onymous.console.reviews import Reviews
from onymous.console.site import Problem, Rooms, Site
from onymous.console.stream import Stream
from onymous.console.versions import Versions

Endpoint = Callable[[Request], Awaitable[Response]]


def console_app(rooms: Rooms, key: bytes) -> ASGIApp:
    """Return the console; `key` signs its cookies and stays the same over restarts."""
    site = Site(rooms, key)
    here = "/console/{scope:int}/{environment}"
    table = [*_doors(site), *_places(site, here), *_reviews(site, here), _files()]
    return Starlette(routes=table, exception_handlers={404: _lost(site), 405: _lost(site)})


def _doors(site: Site) -> list[BaseRoute]:
    doors, pages, versions = Doors(site), Pages(site), Versions(site)
    return [
        Route("/console", site.guarded(doors.home)),
        Route("/console/", site.guarded(doors.home)),
        Route("/console/sign-in", site.told(doors.sign_in), methods=["GET", "POST"]),
        Route("/console/welcome/{token}", site.told(doors.welcome), methods=["GET", "POST"]),
        Route("/console/sign-out", site.guarded(doors.sign_out), methods=["POST"]),
        Route("/console/audit", site.guarded(pages.audit)),
        Route("/console/versions", site.guarded(versions.page)),
        Route("/console/versions/{number:int}", site.guarded(versions.version)),
        Route(
            "/console/rules/{number:int}/undo", site.guarded(versions.undo_rules), methods=["POST"]
        ),
    ]


def _places(site: Site, here: str) -> list[BaseRoute]:
    pages, actions, stream = Pages(site), Actions(site), Stream(site)
    person = here + "/person/{mpid}"
    posts: dict[str, Endpoint] = {
        f"{here}/search": site.guarded(pages.search),
        f"{person}/reveal": site.guarded(pages.reveal),
        f"{person}/detach": site.guarded(Detach(site).page),
        f"{here}/merge/preview": site.guarded(actions.preview),
        f"{here}/alias": site.guarded(actions.alias),
        f"{here}/merge": site.guarded(actions.merge),
        person + "/merge/{number}/undo": site.guarded(actions.undo_merge),
        person + "/entry/{number}/undo": site.guarded(actions.undo_entry),
        person + "/alias/{number}/undo": site.guarded(actions.undo_alias),
    }
    return [
        Route(here, site.guarded(pages.search)),
        Route(person, site.guarded(pages.person)),
        Route(person + "/batch/{batch:int}", site.guarded(pages.batch), methods=["GET", "POST"]),
        Route(person + "/entry/{number}/why", site.guarded(pages.why)),
        Route(f"{here}/live", site.guarded(stream.page)),
        Route(f"{here}/live/stream", site.guarded(stream.stream)),
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
    ]


def _reviews(site: Site, here: str) -> list[BaseRoute]:
    reviews = Reviews(site)
    entry = here + "/review/{entry}"
    return [
        Route(f"{here}/review", site.guarded(reviews.page)),
        Route(entry, site.guarded(reviews.entry), methods=["GET", "POST"]),
        Route(f"{entry}/accept", site.guarded(reviews.accept), methods=["POST"]),
        Route(f"{entry}/refuse", site.guarded(reviews.refuse), methods=["POST"]),
    ]


def _files() -> BaseRoute:
    files = StaticFiles(packages=[("onymous.console", "static")])

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"]]  # type: ignore[misc]
                # the address changes with the content
                headers.append((b"cache-control", b"public, max-age=31536000, immutable"))
                headers.append((b"x-content-type-options", b"nosniff"))
                message = {**message, "headers": headers}
            await send(message)

        await files(scope, receive, sent)  # type: ignore[arg-type]

    return Mount("/console/static", serve)


def _lost(site: Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return what answers a path that is none: to strangers it says to sign in."""

    async def answer(request: Request, error: Exception) -> Response:
        async def lost(visit: object) -> Response:
            raise Problem(
                getattr(error, "status_code", 404),
                "There is no such page",
                "Search for a person, or go back.",
            )

        return await site.guarded(lost)(request)

    return answer
