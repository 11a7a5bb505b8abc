"""The history that is replayed: one topic with as much as eight others together, one after the other."""

from __future__ import annotations

import http.client
import json

from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.log.inprocess import PAD

EIGHT = [f"eight/{number}" for number in range(8)]
SUBSCRIPTIONS = {"one topic": ["one"], "eight topics": EIGHT, "a pattern": ["eight/*"]}
TOGETHER = 1_000


def histories(number: int) -> list[tuple[list[str], int]]:
    """Return the topics of each part of the history, and how many notifications it has."""
    half = number // 2
    return [(["one"], half), (EIGHT, half), (["one"], number - half), (EIGHT, number - half)]


def publish_histories(port: int, number: int) -> None:
    """Publish *number* notifications to the one topic, and as many to the eight, in lists.

    Raises:
        CannotMeasure: the hub did not take one.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for topics, part in histories(number):
        for first in range(0, part, TOGETHER):
            drafts = [
                {"topic": topics[place % len(topics)], "data": {"p": PAD, "n": place}}
                for place in range(first, min(first + TOGETHER, part))
            ]
            connection.request(
                "POST", "/notifications/publish", json.dumps(drafts), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise CannotMeasure(f"publishing the history was answered with {answer.status}")
    connection.close()
