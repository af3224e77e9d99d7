"""Lifetime value: what one event adds to it, exactly, in millionths of the currency unit.

Purchases add and refunds subtract their total; other events add what they state where they are
marked as a goal. Currencies are not converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

#: one unit of money
MILLION = 1_000_000
#: larger amounts are mistakes, not money
_MOST = 10**12


def worth_of(kind: str, data: Mapping[str, Any]) -> int:
    """Return what an event is worth in millionths; 0 where it is not about money."""
    action = data.get("product_action")
    if kind == "commerce_event" and isinstance(action, dict):
        sign = {"purchase": 1, "refund": -1}.get(str(action.get("action", "")).lower(), 0)
        return sign * _total(action) if sign else 0
    if data.get("is_goal_defined") is True:
        return millionths(data.get("lifetime_value_change")) or 0
    return 0


def millionths(given: object) -> int | None:
    """Return an amount in millionths; numbers and numeric text are taken, else None."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    if isinstance(given, str) and len(given) > 40:
        return None
    try:
        amount = Decimal(str(given).strip())
        if not amount.is_finite() or abs(amount) > _MOST:
            return None
    except (ArithmeticError, ValueError):  # also 1e99999999, which no context holds
        return None
    return int((amount * MILLION).to_integral_value())


def _total(action: Mapping[str, Any]) -> int:
    """Return the total of an order: as stated, else of its products."""
    stated = millionths(action.get("total_amount"))
    if stated is not None:
        return stated
    products = action.get("products")
    total = 0
    for product in products if isinstance(products, list) else ():
        if isinstance(product, dict):
            own = millionths(product.get("total_product_amount"))
            total += _priced(product) if own is None else own
    return total


def _priced(product: Mapping[str, Any]) -> int:
    price = millionths(product.get("price"))
    count = millionths(product.get("quantity", 1))
    if price is None or count is None:
        return 0
    return price * count // MILLION
