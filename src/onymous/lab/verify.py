"""Invariants of a whole store, for audits and soaks."""

from __future__ import annotations

from collections.abc import Mapping

from onymous.app import Core
from onymous.flows.verifying import Verifier
from onymous.rules.strategies import Plan


async def problems(core: Core, plans: Mapping[int, Plan]) -> list[str]:
    """Return what is wrong in a store; `plans` are the rules by scope number, where it has none.

    Records of scopes without rules are checked as far as that goes. Loaded records (scenarios)
    have no ledger: only records that have one are compared with it.
    """
    async with core.store.read() as session:
        found = await Verifier(session, core.store.engine, plans).run()
    return [finding.what for finding in found]
