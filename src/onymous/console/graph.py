"""The drawing of a person: who they are in the middle, their names around, edges with origins."""

from __future__ import annotations

from typing import Any

import msgspec

WIDTH = 1120
#: a box of a name, the box in the middle, the distance between names
BOX_W, BOX_H, PITCH = 226, 48, 66
MID_W, MID_H = 216, 76
#: names drawn on a side; the table below the drawing has all
MOST = 9
_TOP = 34


class Node(msgspec.Struct, kw_only=True):
    """One box with its edge to the middle."""

    side: str
    x: float
    y: float
    path: str
    label_x: float
    label_y: float
    name: dict[str, Any]


class Drawing(msgspec.Struct, kw_only=True):
    """Everything the template needs to draw."""

    width: int
    height: int
    mid_x: float
    mid_y: float
    nodes: list[Node]
    #: (x, y, how many more) where a side has more names than are drawn
    more: list[tuple[float, float, int]]


def draw(user: list[dict[str, Any]], device: list[dict[str, Any]]) -> Drawing:
    """Lay a person's names out: those of the person left, those of devices right."""
    rows = max(1, min(len(user), MOST), min(len(device), MOST))
    extra = 26 if max(len(user), len(device)) > MOST else 0
    height = _TOP * 2 + max(rows * PITCH - (PITCH - BOX_H), MID_H) + extra
    mid_y = (height - extra) / 2
    out = Drawing(width=WIDTH, height=height, mid_x=WIDTH / 2, mid_y=mid_y, nodes=[], more=[])
    for side, names in (("user", user), ("device", device)):
        shown = names[:MOST]
        top = mid_y - (len(shown) * PITCH - (PITCH - BOX_H)) / 2
        for n, name in enumerate(shown):
            out.nodes.append(_node(side, name, top + n * PITCH, mid_y))
        if len(names) > MOST:
            x = 10 + BOX_W / 2 if side == "user" else WIDTH - 10 - BOX_W / 2
            out.more.append((x, height - 16, len(names) - MOST))
    return out


def _node(side: str, name: dict[str, Any], y: float, mid_y: float) -> Node:
    left = side == "user"
    x = 10 if left else WIDTH - 10 - BOX_W
    edge, middle = (x + BOX_W, WIDTH / 2 - MID_W / 2) if left else (x, WIDTH / 2 + MID_W / 2)
    cy = y + BOX_H / 2
    # straight beside the words, then a curve; the ends stay apart
    gap = middle - edge
    bend, one, two = edge + gap * 0.58, edge + gap * 0.8, edge + gap * 0.78
    end = mid_y + max(-MID_H / 2 + 10, min(MID_H / 2 - 10, (cy - mid_y) * 0.14))
    curve = f"C{one:.0f} {cy:.0f} {two:.0f} {end:.0f} {middle:.0f} {end:.0f}"
    path = f"M{edge:.0f} {cy:.0f} H{bend:.0f} {curve}"
    return Node(
        side=side,
        x=x,
        y=y,
        path=path,
        label_x=edge + 8 if left else edge - 8,
        label_y=cy - 7,
        name=name,
    )
