"""What the hub keeps: pages of the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from hub.client.steps import Ask, Chance, Steps, persistent

PATH = "/notifications/history"
PAGE = 1_000
MAX_PAGE_BYTES = 16 * 1024 * 1024


class Leafing:
    """The way through the history of some topics, page by page.

    Attributes:
        ended: there is no further page.
    """

    def __init__(self, topics: Sequence[str], after: str, limit: int | None) -> None:
        self._topics, self._after, self._left = tuple(topics), after, limit
        self.ended = limit == 0

    def page(self, patience: float, chance: Chance) -> Steps[dict[str, Any]]:
        """Return the next page, as the hub sends it."""
        page = yield from persistent(self._once, patience, chance)
        self._after = page["next"]
        if self._left is not None:
            self._left -= len(page["notifications"])
        self.ended = self._after is None or (self._left is not None and self._left <= 0)
        return page

    def _once(self, token: str | None) -> Steps[dict[str, Any]]:
        number = PAGE if self._left is None else min(self._left, PAGE)
        query = [("topic", topic) for topic in self._topics] + [("limit", str(number))]
        query += [("after", self._after)] if self._after else []
        answer = yield Ask("GET", f"{PATH}?{urlencode(query)}", token, most=MAX_PAGE_BYTES)
        page: dict[str, Any] = answer.facts(200)
        whole = isinstance(page, dict) and page.keys() >= {"notifications", "next", "recovered"}
        if not whole or not isinstance(page["notifications"], list) or page["next"] == self._after:
            raise answer.not_a_hub()
        return page
