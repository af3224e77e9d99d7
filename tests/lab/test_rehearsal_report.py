"""The report of a rehearsal in a real Chromium: hostile names, light and dark, phone width."""

from __future__ import annotations

from typing import Any

from tests.console.making import NASTY, Seen, browser
from tests.console.test_console_browser import CONTRAST

from onymous.lab.rehearsal_report import page, verdict
from onymous.lab.rehearsed import RISKS, Deciding, Example, Rehearsal, Valued

QUIET: dict[str, Any] = {"values": [], "risks": [], "known": 0}


def rehearsal(**more: object) -> Rehearsal:
    """Return a rehearsal under which people are joined and parted."""
    given: dict[str, object] = {
        "scope": "people",
        "environment": "production",
        "requests": 1_200,
        "people_before": 100,
        "people_after": 80,
        "known_before": 50,
        "known_after": 51,
        "merges": 12,
        "splits": 1,
        "merged_known": 1,
        "split_known": 0,
        "risky": 2,
        "risks": dict.fromkeys(RISKS, 1),
        "values": [Deciding(type="email", value=NASTY * 9, merges=3, shared_by=7)],
        "listed": [],
        "by": {"device_application_stamp": 11, "none": 2},
        "several_before": 0,
        "several_after": 3,
        "shared_before": {"ios_idfv": 2},
        "shared_after": {"roku_publisher_id": 1},
        "examples": [
            Example(
                kind="merge",
                people=[str(-(1 << 62) - n) for n in range(25)],
                into=1,
                values=[
                    Valued(type="device_application_stamp", value="****42"),
                    Valued(type="email", value="x" * 250),
                ],
                risks=["device_only"],
                known=3,
                decided_by="device_application_stamp",
                trace=["device_application_stamp: " + "finds " * 60, NASTY, "x" * 400],
            ),
            Example(kind="split", people=["7"], into=2, decided_by="none", trace=[], **QUIET),
            Example(kind="merge", people=[], into=1, decided_by="email", trace=[], **QUIET),
        ],
    }
    return Rehearsal(**{**given, **more})  # type: ignore[arg-type]


STILL: dict[str, object] = {
    "merges": 0,
    "splits": 0,
    "merged_known": 0,
    "risky": 0,
    "by": {},
    "values": [],
    "examples": [],
}


async def test_the_report_can_be_shown_to_anybody() -> None:
    some = [
        rehearsal(),
        rehearsal(scope=NASTY * 5, **STILL),
        rehearsal(scope="empty", requests=0, **STILL),
    ]
    async with browser() as chromium:
        seen = Seen(await chromium.new_page())
        await seen.page.set_viewport_size({"width": 375, "height": 700})
        await seen.page.set_content(page(some, NASTY))
        assert await seen.page.evaluate("window.bad") is None
        await seen.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = 1)")
        assert await seen.page.evaluate("document.documentElement.scrollWidth") == 375
        for scheme in ("dark", "light"):
            await seen.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert await seen.page.evaluate(CONTRAST) == [], scheme
        text = await seen.page.inner_text("main")
        assert "25 people become one, through Device Application Stamp ****42" in text
        assert "and 5 more" in text and "One person becomes 2: no identity decides" in text
        assert "not known any more" in text and "nothing can be said" in text
        assert await seen.page.locator("section").count() == 3
        assert await seen.page.locator("section .pair").count() == 3
        assert seen.complaints == []
        await seen.page.set_content(page([], "new.yaml"))
        assert "holds anything yet" in await seen.page.inner_text("main")


def test_the_verdict_counts_like_people_do() -> None:
    assert verdict(rehearsal()) == (
        "12 groups of people would become one each and one person would become several."
        " 2 of these groups may put two people together: look at them."
        " 1 of these groups would join people who have logged in."
    )
    one = rehearsal(merges=1, splits=0, merged_known=0, risky=1)
    assert verdict(one) == (
        "One group of people would become one person. It may put two people together: look at them."
    )
    assert verdict(rehearsal(**STILL)) == "Everybody stays who they are."
