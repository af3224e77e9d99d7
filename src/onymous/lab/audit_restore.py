"""The audit goes through backups and restores: what was, is; what was erased, stays erased; no MPID
is given twice, however often one backup is restored."""

from __future__ import annotations

import copy
import random

from onymous.app import running
from onymous.lab.audit import Audited, Violation
from onymous.lab.auditor import Model
from onymous.lab.ground import Ground
from onymous.lab.histories import configuration, operation
from onymous.lab.verify import problems

SCOPE, BEFORE, AFTER, TIMES = 500, 70, 50, 2


class _Fork:
    """A history at the moment of its backup, and what is known of all that came after it."""

    def __init__(self, audited: Audited, rng: random.Random) -> None:
        self.model: Model = copy.deepcopy(audited.model)
        self.mpids, self.now, self.rng = list(audited.mpids), audited.now, rng
        self.ever: set[str] = set(self.mpids)
        self.erased: list[str] = []

    async def go_on(self, audited: Audited) -> None:
        """Go on with a history, remembering whom it erases and makes."""
        known = set(audited.mpids)
        self.erased += await _steps(audited, self.rng, AFTER)
        fresh = set(audited.mpids) - known
        if fresh & self.ever:
            raise Violation("after a restore an MPID was given a second time")
        self.ever |= fresh


async def restored_histories(ground: Ground, seed: int) -> int:
    """Audit one history, back it up, go on, and restore it twice; returns the steps made.

    Raises `Violation`.
    """
    rng = random.Random(seed)
    config = configuration(rng)
    async with ground.fresh() as settings, ground.kept(settings) as kept:
        async with running(settings) as core:
            audited = Audited(core, config, SCOPE)
            await _steps(audited, rng, BEFORE)
            fork = _Fork(audited, rng)
        await kept.back_up()
        async with running(settings) as core:
            audited.core = core
            await fork.go_on(audited)
        for _ in range(TIMES):
            async with kept.restored() as new, running(new) as core:
                again = Audited(core, config, SCOPE)
                again.model, again.mpids = copy.deepcopy(fork.model), list(fork.mpids)
                again.now = fork.now + 1
                _erase_in(again, fork.erased)
                _refuse(await again.differences())
                await fork.go_on(again)
                _refuse(await problems(core, {SCOPE: again.caller.plan}))
    return BEFORE + AFTER * (1 + TIMES)


async def _steps(audited: Audited, rng: random.Random, count: int) -> list[str]:
    """Go on with a history; return the MPIDs that were erased on the way."""
    gone = []
    for _ in range(count):
        known = {r.mpid for r in audited.model.records if not r.erased}
        await audited.step(operation(rng, audited.mpids[-12:]))
        gone += sorted(known - {r.mpid for r in audited.model.records if not r.erased})
    _refuse(await audited.differences())
    return gone


def _erase_in(audited: Audited, erased: list[str]) -> None:
    """Let the model know of erasures that a restore does again."""
    for mpid in dict.fromkeys(erased):
        if mpid in audited.mpids:
            op = {"op": "erase", "mpid": mpid}
            audited.model.commit(audited.model.expect(op, audited.now))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise Violation("\n".join(["after a restore:", *problems]))
