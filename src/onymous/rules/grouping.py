"""Numbers by number and groups of numbers, in eight bytes each: for millions of people at once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

#: numbers of a page; internal numbers run on, with gaps after a restore
_PAGE = 4_096
_NONE = -1


class Numbers:
    """A mapping of whole numbers, zero and above, that mostly run on."""

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}

    def get(self, number: int) -> int | None:
        """Return what was put under a number, or None."""
        page = self._pages.get(number // _PAGE)
        if page is None or (found := page[number % _PAGE]) == _NONE:
            return None
        return found

    def put(self, number: int, value: int) -> None:
        """Put a value, zero or above, under a number."""
        page = self._pages.get(number // _PAGE)
        if page is None:
            page = self._pages[number // _PAGE] = array("q", [_NONE]) * _PAGE
        page[number % _PAGE] = value

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield all of it in pieces, for `put_page`."""
        for number, page in self._pages.items():
            yield number, page.tobytes()

    def put_page(self, number: int, page: bytes) -> None:
        """Put back a piece."""
        self._pages[number] = array("q", page)


class Groups:
    """Which numbers belong together, directly or through others."""

    def __init__(self) -> None:
        self._above = Numbers()

    def root(self, number: int) -> int:
        """Return the number that stands for the group of a number."""
        above = self._above
        while (up := above.get(number)) is not None:
            further = above.get(up)
            if further is None:
                return up
            above.put(number, further)
            number = further
        return number

    def join(self, one: int, other: int) -> None:
        """Put the groups of two numbers together; the lower stands for both."""
        one, other = self.root(one), self.root(other)
        if one != other:
            self._above.put(max(one, other), min(one, other))
