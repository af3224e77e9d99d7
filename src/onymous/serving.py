"""Serve an application with uvicorn, with the hot routes before ASGI."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import pathlib
import socket
import tempfile
from collections.abc import Callable

import uvicorn

from onymous.app import Core, calm_collector
from onymous.console.app import console_app
from onymous.console.site import Rooms
from onymous.flows.aliases import request_alias
from onymous.flows.finding import Finder
from onymous.flows.live import Live
from onymous.flows.people import People
from onymous.flows.ties import Ties
from onymous.flows.timeline import Timeline
from onymous.limits import Bounds, Limits, Trusted
from onymous.managing import manager, public_only
from onymous.observe import Metrics
from onymous.rules.errors import BodyTooLarge
from onymous.settings import SettingError, Settings
from onymous.tls import throw_away
from onymous.web.about import AboutWeb
from onymous.web.activity import ActivityWeb
from onymous.web.aliases import AliasWeb
from onymous.web.auth import Authenticator
from onymous.web.changes import ChangesWeb
from onymous.web.events import EventsWeb
from onymous.web.guard import Guard
from onymous.web.hot import hot_protocol
from onymous.web.identity import IdentityWeb, refused
from onymous.web.merges import MergesWeb
from onymous.web.oauth import OAuthWeb
from onymous.web.profiles import ProfilesWeb
from onymous.web.routes import routes
from onymous.web.server import Application, Asgi, raw


def application(
    core: Core, metrics: Metrics, ending: Callable[[], bool] = lambda: False
) -> Application:
    """Return the HTTP application of a started core."""
    s = core.settings
    bounds = Bounds(
        max_identity_body_bytes=s.max_identity_body_bytes,
        max_event_body_bytes=s.max_event_body_bytes,
        max_identities_per_request=s.max_identities_per_request,
        max_identities_per_profile=s.max_identities_per_profile,
    )
    limits = Limits(
        address_per_second=s.address_requests_per_second,
        values_per_hour=s.address_values_per_hour,
        value_per_hour=s.value_requests_per_hour,
        profiles_per_hour=s.address_profiles_per_hour,
    )
    auth = Authenticator(core.directory)
    identity = IdentityWeb(core.resolver, core.store, core.historian, auth, Guard(limits), bounds)
    table = routes(
        identity,
        EventsWeb(core.resolver, core.events, auth, core.diagnostics, bounds),
        AliasWeb(core.resolver, core.store, auth, bounds),
        AboutWeb(core.ready, lambda: _measured(core, metrics)),
        MergesWeb(core.merging, core.undoing, auth, bounds),
        ChangesWeb(core.changes, auth, ending),
        OAuthWeb(core.tokens),
        ProfilesWeb(core.store, core.profiles, core.tokens, core.reads, limits),
        ActivityWeb(core.activity, core.profiles, core.tokens, core.reads, core.directory),
        s.max_event_body_bytes,
    )
    core.desk.on_commit = metrics.commit
    trusted = Trusted(tuple(map(ipaddress.ip_network, s.trusted_proxies.split())))
    return Application(table, identity, trusted, observe=metrics.request)


async def console(core: Core, ending: Callable[[], bool]) -> Asgi:
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
        alias=functools.partial(request_alias, core.resolver, core.store),
        ending=ending,
    )
    return console_app(rooms, await people.signing_key())


def with_console(settings: Settings) -> bool:
    """Return whether the console is served; raises `SettingError` for a word that is none."""
    if settings.console not in ("auto", "on", "off"):
        raise SettingError("console must be auto, on or off")
    host = settings.manage_host if settings.manage_port else settings.host
    loopback = host == "localhost" or host.startswith("127.")
    return settings.console == "on" or (settings.console == "auto" and (loopback or host == "::1"))


def _measured(core: Core, metrics: Metrics) -> bytes:
    metrics.waiting.set(core.desk.waiting)
    for kind, count in core.diagnostics.counts.items():
        metrics.diagnostics.labels(kind).set(count)
    return metrics.text()


def listen(settings: Settings) -> socket.socket:
    """Open the listening socket; raises `SettingError` if the address is taken."""
    return _bound(settings.host, settings.port)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise SettingError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port"
        ) from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


class Server:
    """One serving process: a core, its HTTP application and a socket."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.core = Core(settings)
        self.metrics = Metrics()
        self._manager: uvicorn.Server | None = None

    async def run(self, sock: socket.socket, started: Callable[[], None] | None = None) -> None:
        """Serve until told to stop (SIGINT, SIGTERM or `stop`), then answer what waits."""
        shown = with_console(self.settings)
        await self.core.start()
        pages = await console(self.core, self._ending) if shown else None
        calm_collector()
        try:
            with tempfile.TemporaryDirectory(prefix="onymous-tls-") as folder:
                self._uvicorn = self._server(pages, pathlib.Path(folder))
            tasks = [
                asyncio.create_task(self._tell(started)),
                asyncio.create_task(self.core.work()),
            ]
            if self._manager is not None:
                place = _bound(self.settings.manage_host, self.settings.manage_port)
                # signals are the public server's; it ends this one
                tasks.append(asyncio.create_task(self._manager._serve([place])))
            await self._uvicorn.serve(sockets=[sock])
            if self._manager is not None:
                self._manager.should_exit = True
                await tasks.pop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self.core.close()

    def stop(self) -> None:
        """Stop accepting, answer what is under way, return from `run`."""
        self._uvicorn.should_exit = True

    def _ending(self) -> bool:
        return self._uvicorn.should_exit

    async def _tell(self, started: Callable[[], None] | None) -> None:
        while not self._uvicorn.started:
            await asyncio.sleep(0.005)
        if started is not None:
            started()

    def _server(self, pages: Asgi | None, folder: pathlib.Path) -> uvicorn.Server:
        s = self.settings
        cert, key = s.tls_cert, s.tls_key
        if s.tls_dev and not cert:
            cert, key = map(str, throw_away(folder, s.host))
        app = application(self.core, self.metrics, self._ending)
        app.console = pages
        if s.manage_port:
            self._manager = manager(app, cert, key)
        too_large = raw(refused(BodyTooLarge(most=s.max_identity_body_bytes), None))
        protocol = hot_protocol(app.hot(), s.max_identity_body_bytes, too_large, app.find_hot)
        config = uvicorn.Config(
            public_only(app) if s.manage_port else app,
            http=protocol,
            loop="none",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=15,
            ssl_certfile=cert or None,
            ssl_keyfile=key or None,
        )
        config.load()  # reads the certificate now; the folder of a throw-away one goes
        return uvicorn.Server(config)
