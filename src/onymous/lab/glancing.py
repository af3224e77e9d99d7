"""Questions asked as busy connections ask them: at a glance where that may do."""

from __future__ import annotations

import asyncio

from onymous.app import Core
from onymous.flows.answers import Answer, Question
from onymous.flows.glance import Aim, Known, aim, answer_of
from onymous.flows.told import Told


class _Asked(Known):
    """A question whose answer somebody waits for."""

    __slots__ = ("_future",)

    def __init__(self, core: Core, question: Question, wanted: Aim) -> None:
        super().__init__(core.resolver, question, wanted)
        self._future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def told(self, told: Told) -> None:
        """Answer somebody known by all that was given."""
        self.done(answer_of(told))

    def done(self, answer: Answer) -> None:
        """Answer what went the ordinary way."""
        self._future.set_result(answer)

    async def answer(self) -> Answer:
        """Wait for the answer."""
        return await self._future


async def at_a_glance(core: Core, question: Question) -> Answer:
    """Ask an identify or login; what is unusual about it goes the ordinary way."""
    wanted = aim(core.resolver, question, question.caller.pool(question.environment))
    if wanted is None:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        core.resolver.ask(question, future.set_result)
        return await future
    asked = _Asked(core, question, wanted)
    core.desk.submit_glance(asked, wanted.label)
    return await asked.answer()
