"""What every page shares: who asks, which place they look at, forms, answers, errors."""

from __future__ import annotations

import hashlib
import hmac
import importlib.resources
import logging
import secrets
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from itsdangerous import BadSignature, URLSafeTimedSerializer
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from onymous.console.masking import Handles
from onymous.console.words import day, label, labelled, money, when
from onymous.flows.aliases import AliasRequest
from onymous.flows.answers import Answer, Question
from onymous.flows.detaching import Detaching
from onymous.flows.explaining import Explained
from onymous.flows.finding import Finder
from onymous.flows.former import Former
from onymous.flows.live import Live
from onymous.flows.merging import Merging
from onymous.flows.people import Attempts, People, User
from onymous.flows.profiles import Profiles
from onymous.flows.review import Review
from onymous.flows.rules_asked import Rules
from onymous.flows.scope_log import Done
from onymous.flows.tenants import Caller, Directory
from onymous.flows.ties import Ties
from onymous.flows.timeline import Timeline
from onymous.flows.undoing import Undoing
from onymous.flows.versions import Version
from onymous.flows.whose import Whose
from onymous.rules.errors import Refusal

log = logging.getLogger("onymous.console")

COOKIE = "onymous_console"
#: seconds a session lasts, and a form of the sign-in page
SESSION_S, FORM_S = 8 * 3600, 3600
MOST_FORM = 65_536
ENVIRONMENTS = ("production", "development")
Handler = Callable[["Visit"], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex",
}


class Rooms(msgspec.Struct, kw_only=True):
    """The flows the console calls."""

    people: People
    directory: Directory
    profiles: Profiles
    timeline: Timeline
    finder: Finder
    ties: Ties
    live: Live
    merging: Merging
    undoing: Undoing
    detaching: Detaching
    #: (pool, person, now) -> the names they have no more
    former: Callable[[int, int, int], Awaitable[list[Former]]]
    alias: Callable[[Question, AliasRequest], Awaitable[Answer]]
    explain: Callable[[Caller, str, str, Whose], Awaitable[Explained]]
    review: Review
    #: (before, at most) -> versions of the configuration; number -> one with its document
    versions: Callable[[int | None, int], Awaitable[list[Version]]]
    version: Callable[[int], Awaitable[Version]]
    #: joins and splits of scopes
    scope_changes: Callable[[], Awaitable[list[Done]]]
    #: changes of rules applied to history
    rules: Rules
    #: whether the server is about to stop: live pages end then
    ending: Callable[[], bool] = lambda: False
    #: (who connected, X-Forwarded-For) -> address of the client; proxies are believed if trusted
    address: Callable[[str, str], str] = lambda peer, forwarded: peer


class Problem(Exception):
    """A page that says what went wrong and what to do."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(title)
        self.status, self.title, self.text = status, title, text


class SignInFirst(Exception):
    """Nobody is signed in, or no longer."""


class Place(msgspec.Struct, frozen=True):
    """What someone looks at: one scope in one environment."""

    scope: int
    scope_name: str
    environment: str
    #: an input of the scope, for its plan; nothing is done in its name
    caller: Caller

    @property
    def pool(self) -> int:
        """Return the number of the pool."""
        return self.caller.pool(self.environment)

    @property
    def path(self) -> str:
        """Return where the pages of this place begin."""
        return f"/console/{self.scope}/{self.environment}"


class Visit:
    """One request of someone signed in."""

    def __init__(self, site: Site, request: Request, user: User, csrf: str) -> None:
        self.site, self.request, self.user, self.csrf = site, request, user, csrf
        self.form: dict[str, str] = {}
        self.now_ms = time.time_ns() // 1_000_000
        self._place: Place | None = None

    @property
    def place(self) -> Place:
        """Return the place named by the path; raises `Problem` where there is none to see."""
        if self._place is None:
            params = self.request.path_params
            found = [
                p
                for p in self.site.places(self.user)
                if p.scope == params["scope"] and p.environment == params["environment"]
            ]
            if not found:
                raise Problem(404, "No such scope", "It does not exist, or it is not open to you.")
            self._place = found[0]
        return self._place

    def need(self, task: str) -> None:
        """Refuse what the role does not include."""
        if not self.user.may(task):
            raise Problem(
                403,
                "Your role does not include this",
                f"You are signed in as {self.user.role}. Ask an administrator if you need it.",
            )

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a rendered page."""
        return self.site.page(
            template,
            status,
            user=self.user,
            csrf=self.csrf,
            place=self._place,
            places=self.site.places(self.user),
            **values,
        )


class Site:
    """Templates, cookies and errors of the console."""

    def __init__(self, rooms: Rooms, key: bytes) -> None:
        self.rooms = rooms
        self.attempts = Attempts()
        self.handles = Handles(key)
        self._signer = URLSafeTimedSerializer(key, salt="onymous console")
        self.templates = Environment(
            loader=PackageLoader("onymous.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals["version"] = _version()
        self.templates.filters |= {
            "when": when,
            "day": day,
            "label": label,
            "money": money,
            "labelled": labelled,
        }

    def places(self, user: User) -> list[Place]:
        """Return every place someone may look at, production first."""
        callers: dict[int, Caller] = {}
        for caller in self.rooms.directory.callers():
            if user.sees(caller.scope_name):
                callers.setdefault(caller.scope, caller)
        return [
            Place(number, caller.scope_name, environment, caller)
            for number, caller in sorted(callers.items())
            for environment in ENVIRONMENTS
        ]

    # -- answers ----------------------------------------------------------------------------

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a rendered page with the headers every page has."""
        given = {"user": None, "csrf": "", "place": None, "places": [], **values}
        html = self.templates.get_template(template).render(given)
        return Response(html, status, HEADERS, "text/html")

    def redirect(self, to: str) -> Response:
        """Return the way to another page of the console."""
        return RedirectResponse(to, 303, HEADERS)

    def problem(self, problem: Problem, visit: Visit | None) -> Response:
        """Return the page of an error."""
        values: dict[str, Any] = {
            "title": problem.title,
            "text": problem.text,
            "code": problem.status,
        }
        if visit is not None:
            return visit.page("problem.html", problem.status, **values)
        return self.page("problem.html", problem.status, **values)

    # -- sessions ---------------------------------------------------------------------------

    def remember(self, answer: Response, request: Request, user: User | None) -> str:
        """Set the session cookie, of someone or of nobody yet; return its CSRF token."""
        csrf = secrets.token_urlsafe(18)
        facts: list[object] = [user.id, user.generation, csrf] if user is not None else [0, 0, csrf]
        answer.set_cookie(
            COOKIE,
            str(self._signer.dumps(facts)),
            max_age=SESSION_S if user is not None else FORM_S,
            path="/console",
            # a proxy in front may speak https for us; a false claim only makes the cookie stricter
            secure="https" in (request.url.scheme, request.headers.get("x-forwarded-proto")),
            httponly=True,
            samesite="strict",
        )
        return csrf

    def forget(self, answer: Response) -> None:
        """Remove the session cookie."""
        answer.delete_cookie(COOKIE, path="/console", httponly=True, samesite="strict")

    def facts(self, request: Request) -> tuple[int, int, str] | None:
        """Return (user, generation, CSRF token) of a valid cookie, or None."""
        try:
            cookie = request.cookies.get(COOKIE, "")
            number, generation, csrf = self._signer.loads(cookie, max_age=SESSION_S)
        except (BadSignature, ValueError, TypeError):
            return None
        return int(number), int(generation), str(csrf)

    async def visit(self, request: Request) -> Visit:
        """Return the visit of someone signed in; raises `SignInFirst`."""
        facts = self.facts(request)
        user = await self.rooms.people.by_id(facts[0]) if facts is not None and facts[0] else None
        if facts is None or user is None or user.generation != facts[1]:
            raise SignInFirst()
        return Visit(self, request, user, facts[2])

    def guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Wrap a handler: who asks, forms checked, errors told."""

        async def run(request: Request) -> Response:
            visit: Visit | None = None
            try:
                visit = await self.visit(request)
                if request.method == "POST":
                    visit.form = await read_form(request)
                    same_site(request, visit.form, visit.csrf)
                return await handler(visit)
            except Exception as error:
                return self._answer_to(error, request, visit)

        return run

    def told(self, handler: Endpoint) -> Endpoint:
        """Wrap what is open to strangers: errors are told."""

        async def run(request: Request) -> Response:
            try:
                return await handler(request)
            except Exception as error:
                return self._answer_to(error, request, None)

        return run

    def _answer_to(self, error: Exception, request: Request, visit: Visit | None) -> Response:
        if isinstance(error, SignInFirst):
            return self.sign_in_first(request)
        if isinstance(error, Problem):
            return self.problem(error, visit)
        if isinstance(error, Refusal):
            return self.problem(Problem(error.status, error.message, error.hint), visit)
        if isinstance(error, ClientDisconnect):
            return Response(status_code=400)
        # the message may hold identity values: only the kind of error and where it was
        bare = RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
        log.error("console failed: %s", type(error).__name__, exc_info=bare)
        sorry = Problem(500, "Something went wrong", "It was logged. Please try again.")
        return self.problem(sorry, visit)

    def sign_in_first(self, request: Request) -> Response:
        """Send to the sign-in page; scripts and streams get 401."""
        wanted = request.headers.get("accept", "")
        elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
        if elsewhere and request.method == "GET" and "again" not in request.query_params:
            # someone follows a link from elsewhere: the browser keeps the cookie back, but not
            # the second time, when it is our own page that asks
            return self.page("again.html", to=_again(request))
        if "json" in wanted or "event-stream" in wanted:
            return Response("Sign in first.", 401, HEADERS, "text/plain")
        back = request.url.path if request.method == "GET" else ""
        query = {"next": back} if back not in ("", "/console") else {}
        if COOKIE in request.cookies:
            query["over"] = "1"
        text = urllib.parse.urlencode(query, safe="/")
        return self.redirect("/console/sign-in" + (f"?{text}" if text else ""))


def _again(request: Request) -> str:
    query = urllib.parse.urlencode([*request.query_params.multi_items(), ("again", "1")])
    return f"{request.url.path}?{query}"


async def read_form(request: Request) -> dict[str, str]:
    """Read the fields of a form, the first of each name; raises `Problem` for a large one."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_FORM:
            raise Problem(413, "Too much at once", "The form is larger than the console accepts.")
    fields = urllib.parse.parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items()}


def same_site(request: Request, form: dict[str, str], csrf: str) -> None:
    """Refuse a form that was not made by a page of this console for this session."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Problem(403, "This form came from elsewhere", "Open the console and try again.")
    if not hmac.compare_digest(form.get("csrf", "").encode(), csrf.encode()):
        raise Problem(
            403, "This form is no longer valid", "Go back, reload the page and send it again."
        )


def _version() -> str:
    """Return what tells this version of the static files from every other."""
    digest = hashlib.blake2b(digest_size=6)
    folder = importlib.resources.files("onymous.console").joinpath("static")
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        digest.update(entry.read_bytes())
    return digest.hexdigest()
