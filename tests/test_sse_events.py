"""Events of other libraries as drafts: what their clients would have seen is what the clients of the hub see."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from datastar_py import ServerSentEventGenerator as Datastar
from datastar_py.consts import ElementPatchMode
from hypothesis import given
from hypothesis import strategies as st

from hub import MessageEvent, from_sse
from hub.errors import InvalidDraft, InvalidTopic
from hub.eventstream import block
from hub.log.memory import MemoryLog
from hub.notification import Draft, Notification, Position
from hub.notifications import NotificationService
from tests.spec_decoder import SpecDecoder


@dataclass
class ServerSentEvent:
    """Shaped as that of sse-starlette."""

    data: Any = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None


@dataclass
class Raw:
    """Shaped as that of FastAPI."""

    data: Any = None
    raw_data: str | None = None
    event: str | None = None


def seen(drafts: list[Draft]) -> list[tuple[str, str]]:
    """Return what a browser would see of *drafts*."""
    frames = b"".join(Notification.accept(each, Position("e", n), 0.0).frame for n, each in enumerate(drafts))
    return [(each.type, each.data) for each in SpecDecoder().feed(frames)]


def test_a_patch_of_datastar_goes_out_as_datastar_made_it():
    event = Datastar.patch_elements(
        "<p>one</p>\n<p>two</p>", selector="#list", mode=ElementPatchMode.APPEND, retry_duration=3000
    )
    (draft,) = from_sse(event, topic="orders", private=True, tags={"by": "shop"}, key="k")
    assert draft == Draft.of(
        "mode append\nselector #list\nelements <p>one</p>\nelements <p>two</p>",
        topic="orders",
        type="datastar-patch-elements",
        retry=3000,
        private=True,
        tags={"by": "shop"},
        key="k",
    )


def test_several_events_are_several_drafts_with_keys_of_their_own():
    events = [Datastar.patch_signals({"n": 1}), Datastar.remove_elements("#a"), Datastar.patch_signals({"n": 2})]
    wanted = ["datastar-patch-signals", "datastar-patch-elements", "datastar-patch-signals"]
    for each in (
        events,
        "".join(events),
        "".join(events).encode(),
        iter(events),
        [events[:2], events[2]],
    ):
        drafts = from_sse(each, topics=iter(["a", "b"]), key="k")
        assert [each.type for each in drafts] == wanted
        assert [each.key for each in drafts] == ["k", "k#1", "k#2"]
        assert {each.topics for each in drafts} == {("a", "b")}


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
events = st.tuples(
    texts, st.none() | st.from_regex(r"[a-z]{1,9}\.[a-z]", fullmatch=True), st.none() | st.integers(0, 9)
)


@given(events=st.lists(events, max_size=4))
def test_text_means_to_clients_of_the_hub_what_it_means_to_those_of_its_library(events: list[Any]):
    text = b":comment\n\n" + b"".join(block(data, type=type, retry=retry, id="1") for data, type, retry in events)
    drafts = from_sse(text)
    assert seen(drafts) == [(each.type, each.data) for each in SpecDecoder().feed(text)]
    assert [each.retry for each in drafts] == [retry for _, _, retry in events]


@pytest.mark.parametrize(
    ("event", "draft"),
    [
        ("data: a", Draft.of("a")),
        ("data: a\r\ndata: b\r\n", Draft.of("a\nb")),
        (b"event: message\ndata: a\n\n", Draft.of("a")),
        (bytearray(b"data: \xc3\xa9\n\n"), Draft.of("é")),
        ({"event": "t", "data": {"a": 1}, "retry": 5, "id": "9"}, Draft.of({"a": 1}, type="t", retry=5)),
        (ServerSentEvent({"a": 1}, event="t"), Draft.of({"a": 1}, type="t")),
        (ServerSentEvent("<p>", id="1"), Draft.of("<p>")),
        (ServerSentEvent(b"<p>"), Draft.of("<p>")),
        (MessageEvent([1], type="t", retry=1), Draft.of([1], type="t", retry=1)),
        (Raw(raw_data="<p>", event="t"), Draft.of("<p>", type="t")),
    ],
)
def test_one_event_is_one_draft(event: object, draft: Draft):
    assert from_sse(event) == [draft]


@pytest.mark.parametrize(
    "event", ["", ": ping\n\n", "retry: 5\n\n", "event: t\n\n", ServerSentEvent(comment="x"), {"event": "t"}, []]
)
def test_what_a_browser_ignores_is_no_draft(event: object):
    assert from_sse(event) == []


async def agen() -> AsyncIterator[str]:
    yield "data: a\n\n"


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (42, "is int, which is neither"),
        (agen(), "is async_generator"),
        ("event: hub.open\ndata: a\n\n", "hub's own"),
        ({"data": 1, "event": 7}, "is not a string"),
        ({"data": 1, "retry": "5"}, "milliseconds"),
        ({"data": b"\xff"}, "is not UTF-8"),
        ("data: \ud800\n\n", "lone surrogate"),
    ],
)
def test_what_is_no_event_is_refused(event: object, says: str):
    with pytest.raises(InvalidDraft, match=re.escape(says)):
        from_sse(event)
    with pytest.raises(InvalidTopic):
        from_sse("data: a", topic="a/*")


async def test_they_are_published_as_neighbours_or_not_at_all():
    service = NotificationService(MemoryLog())
    service.open()
    receipts = service.publish(from_sse("data: a\n\ndata: b\n\n", topic="t"))
    assert [each.result().offset for each in receipts] == [1, 2]
    assert service.publish(from_sse(": nothing\n\n")) == []
