"""Signing in and out, by password or by a one-time link."""

from __future__ import annotations

import contextlib
import re
import secrets

from starlette.requests import Request
from starlette.responses import Response

from onymous.console.site import Problem, SignInFirst, Site, Visit, read_form, same_site
from onymous.flows.people import User

#: paths a sign-in may lead to: pages of the console, nothing else
_NEXT = re.compile(r"/console(/[A-Za-z0-9_-]+)*")


class Doors:
    """GET and POST /console/sign-in, /console/welcome/{token}; POST /console/sign-out."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def sign_in(self, request: Request) -> Response:
        """Show the sign-in page, or check a name and a password."""
        if request.method != "POST":
            facts = self._site.facts(request)
            if facts is not None and facts[0]:
                with contextlib.suppress(SignInFirst):
                    await self._site.visit(request)
                    return self._site.redirect("/console")
            back = request.query_params.get("next", "")
            return self._form(request, back=back, over=request.query_params.get("over", ""))
        try:
            form = await self._checked(request)
        except Problem as problem:
            return self._form(request, problem.status, f"{problem.title}. {problem.text}")
        peer = request.client.host if request.client else ""
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        address = self._site.rooms.address(peer, forwarded)
        name, back = form.get("name", ""), form.get("next", "")
        wait = self._site.attempts.wait_s(address, name)
        if wait:
            minutes = (wait + 59) // 60
            text = f"Too many failed tries. Try again in {minutes} minutes."
            answer = self._form(request, 429, text, back)
            answer.headers["Retry-After"] = str(wait)
            return answer
        # counted before the answer is known, so that tries at the same time count as well
        self._site.attempts.failed(address, name)
        user = await self._site.rooms.people.check(name, form.get("password", ""))
        if user is None:
            text = "This name and password do not belong together."
            return self._form(request, 401, text, back, name[:64])
        self._site.attempts.succeeded(address, name)
        return await self._enter(request, user, back, "sign in")

    async def welcome(self, request: Request) -> Response:
        """Show the button of a one-time link, or use the link up."""
        if request.method != "POST":
            return self._with_form(request, "welcome.html", 200)
        try:
            await self._checked(request)
        except Problem as problem:
            return self._site.problem(problem, None)
        user = await self._site.rooms.people.use_link(request.path_params["token"])
        if user is None:
            gone = Problem(
                410,
                "This link is used up",
                "A sign-in link works once and for a short time. Sign in with your password, or"
                " have a new link made: onymous people link NAME.",
            )
            return self._site.problem(gone, None)
        return await self._enter(request, user, "", "sign in by link")

    async def sign_out(self, visit: Visit) -> Response:
        """End every session of whoever asks."""
        await self._site.rooms.people.sign_out(visit.user)
        answer = self._site.redirect("/console/sign-in")
        self._site.forget(answer)
        return answer

    async def home(self, visit: Visit) -> Response:
        """Go to the first place."""
        places = self._site.places(visit.user)
        if not places:
            raise Problem(
                404, "Nothing to see yet", "Apply a configuration first: onymous apply FILE."
            )
        return self._site.redirect(places[0].path)

    async def _enter(self, request: Request, user: User, back: str, how: str) -> Response:
        await self._site.rooms.people.note(user, how, user.name, {})
        answer = self._site.redirect(back if _NEXT.fullmatch(back) else "/console")
        self._site.remember(answer, request, user)
        return answer

    async def _checked(self, request: Request) -> dict[str, str]:
        form = await read_form(request)
        facts = self._site.facts(request)
        # who has no cookie of ours got no form from us
        same_site(request, form, facts[2] if facts is not None else secrets.token_urlsafe())
        return form

    def _form(
        self,
        request: Request,
        status: int = 200,
        error: str = "",
        back: str = "",
        name: str = "",
        over: str = "",
    ) -> Response:
        back = back if _NEXT.fullmatch(back) else ""
        return self._with_form(
            request, "sign_in.html", status, error=error, back=back, name=name, over=over
        )

    def _with_form(self, request: Request, template: str, status: int, **values: str) -> Response:
        """Return a page whose form only the browser that got it can send."""
        facts = self._site.facts(request)
        if facts is not None and facts[0] == 0:
            return self._site.page(template, status, csrf=facts[2], **values)
        cookie = Response()
        csrf = self._site.remember(cookie, request, None)
        answer = self._site.page(template, status, csrf=csrf, **values)
        answer.headers["set-cookie"] = cookie.headers["set-cookie"]
        return answer
