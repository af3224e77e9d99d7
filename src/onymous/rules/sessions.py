"""Sessions that two profiles of one person both counted: a session with a name begins once.

Each profile knows the names of its latest sessions, not the times or platforms of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def twice(
    one: Sequence[int], two: Sequence[int], ones: Mapping[str, int], twos: Mapping[str, int]
) -> dict[str, int]:
    """Return how many sessions of `two` are counted by `one` already, by the platform of `two`.

    `one` and `two` are names (digests), `ones` and `twos` counts by platform. Platforms that both
    counted on come first: a session is on one of them nearly always.
    """
    left = len({*one} & {*two})
    out: dict[str, int] = {}
    shared = sorted(((p, min(ones[p], twos[p])) for p in twos if p in ones), key=lambda c: -c[1])
    for platform, most in (*shared, *sorted(twos.items())):
        some = min(left, most, twos[platform] - out.get(platform, 0))
        if some > 0:
            out[platform] = out.get(platform, 0) + some
            left -= some
    return out


def within(names_in_both: int, counted: int, window: int) -> int:
    """Return how many sessions of a window are surely counted already.

    Of `counted` sessions `window` lie in it, and `names_in_both` of all of them are known.
    """
    return max(0, names_in_both - (counted - window))
