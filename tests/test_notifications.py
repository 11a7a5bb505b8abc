import asyncio
import enum
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from reactivex import operators

from hub import Hub, Settings
from hub.errors import InvalidDraft, InvalidTopic, ShuttingDown, WrongThread
from hub.log.memory import MemoryLog
from hub.metrics import Metrics
from hub.notification import Notification
from hub.notifications import NotificationService


@pytest.fixture
async def service() -> NotificationService:
    service = NotificationService(MemoryLog(), Metrics())
    service.open()
    return service


def _shout(notification: Notification) -> str:
    return str(notification.data).upper()


def ids(notifications: list[Notification]) -> list[int]:
    return [each.position.offset for each in notifications]


async def test_sending_takes_its_place_at_once_and_confirms_when_awaited(service: NotificationService):
    receipt = service.send_notification({"a": 1})
    position = await receipt
    assert position.offset == 1
    assert (await service.send_to_user(42, "x", type="t")).offset == 2
    assert service.send_to_user(42, "x").topics == ("user/42",)
    assert service.send_to_room("lobby", "x").topics == ("room/lobby",)


@pytest.mark.parametrize(
    ("id", "segment"),
    [("a/b", "a%2Fb"), ("*", "%2A"), ("**", "%2A%2A"), ("a\n", "a%0A"), ("100%", "100%25"), ("a%2Fb", "a%252Fb")],
)
async def test_an_id_is_one_segment_and_no_pattern(service: NotificationService, id: str, segment: str):
    assert service.send_to_user(id, "x").topics == (f"user/{segment}",)
    assert service.send_to_room(id, "x").topics == (f"room/{segment}",)


@pytest.mark.parametrize("id", ["", "x" * 300])
async def test_an_id_that_can_not_be_a_segment_is_refused(service: NotificationService, id: str):
    with pytest.raises(InvalidTopic, match="user_id"):
        service.send_to_user(id, "x")
    with pytest.raises(InvalidTopic, match="room_id"):
        service.send_to_room(id, "x")


class Named(str, enum.Enum):  # noqa: UP042 - prints itself as `Named.ADA`, and many applications have such
    ADA = "ada"


class Numbered(enum.IntEnum):
    ADA = 42


@pytest.mark.parametrize(
    ("id", "segment"),
    [("ada", "ada"), (42, "42"), (UUID(int=7), str(UUID(int=7))), (Named.ADA, "ada"), (Numbered.ADA, "42")],
)
async def test_an_id_is_a_string_a_number_or_a_uuid(service: NotificationService, id: str | int | UUID, segment: str):
    assert service.send_to_user(id, "x").topics == (f"user/{segment}",)
    assert service.send_to_room(id, "x").topics == (f"room/{segment}",)


@pytest.mark.parametrize("id", [None, True, 1.5, b"ada", [1], object()])
async def test_what_is_no_id_is_refused_and_named(service: NotificationService, id: Any):
    with pytest.raises(InvalidTopic, match=r"^user_id: .* is not an id: a user's id is a string") as caught:
        service.send_to_user(id, "x")
    assert (caught.value.field, caught.value.topic) == ("user_id", id)
    with pytest.raises(InvalidTopic, match=r"^room_id: .* is not an id: a room's id is a string"):
        service.send_to_room(id, "x")
    assert (await service.send_notification("x")).offset == 1


class Kind(enum.StrEnum):
    SHIPPED = "order.shipped"


@pytest.mark.parametrize("home", ["memory://", "sqlite:///{}/hub.db"])
async def test_members_of_enums_are_kept_as_their_values_by_every_log(tmp_path: Path, home: str):
    hub = Hub(Settings(log=home.format(tmp_path), drain=0))
    await hub.open()
    heard: list[Notification] = []
    hub.notifications.stream().subscribe(heard.append)
    send = hub.notifications.send_notification
    await send(Kind.SHIPPED, topic=Kind.SHIPPED, type=Kind.SHIPPED, key=Kind.SHIPPED, retry=Numbered.ADA)
    await send("the log goes on")
    await hub.aclose()
    assert [each.frame for each in heard] == [
        f"retry: 42\nevent: order.shipped\nid: {heard[0].id}\ndata: order.shipped\n\n".encode(),
        f"id: {heard[1].id}\ndata: the log goes on\n\n".encode(),
    ]


async def test_the_hook_of_a_hub_is_asked_from_every_thread():
    hub = Hub(Settings(drain=0), json_default=list)
    await hub.open()
    await hub.notifications.send_notification({"a": range(2)})
    sent = await asyncio.to_thread(hub.notifications.send_notification_threadsafe, range(2), topic="b")
    assert (await asyncio.wrap_future(sent)).offset == 2
    await hub.aclose()


async def test_what_is_refused_takes_no_place(service: NotificationService):
    with pytest.raises(InvalidDraft):
        service.send_notification(object())
    assert (await service.send_notification("x")).offset == 1


async def test_the_subject_broadcasts_everything_in_order(service: NotificationService):
    seen: list[Notification] = []
    service.subject.subscribe(seen.append)
    for topic in "abc":
        service.send_notification("x", topic=topic)
    assert ids(seen) == [1, 2, 3]


async def test_a_stream_has_its_topics_only(service: NotificationService):
    seen: dict[str, list[Notification]] = {"a": [], "pattern": [], "wild": [], "all": []}
    service.stream("a", "b").subscribe(seen["a"].append)
    service.stream("x/*").subscribe(seen["pattern"].append)
    service.stream("**").subscribe(seen["wild"].append)
    service.stream().subscribe(seen["all"].append)
    for topics in (["a", "b"], ["x/1"], ["x"], ["user/1"]):
        service.send_notification("x", topics=topics)
    assert {name: ids(got) for name, got in seen.items()} == {
        "a": [1],
        "pattern": [2],
        "wild": [1, 2, 3],
        "all": [1, 2, 3, 4],
    }


async def test_a_stream_is_an_observable_like_any_other(service: NotificationService):
    seen: list[str] = []
    stream = service.stream("a").pipe(operators.map(_shout), operators.take(2))
    stream.subscribe(seen.append, on_completed=lambda: seen.append("end"))
    for text in ("x", "y", "z"):
        service.send_notification(text, topic="a")
    assert seen == ["X", "Y", "end"]


async def test_disposing_ends_a_stream_and_leaves_nothing(service: NotificationService):
    seen: list[Notification] = []
    subscriptions = [service.stream(f"t/{n}", "all").subscribe(seen.append) for n in range(100)]
    for subscription in subscriptions:
        subscription.dispose()
        subscription.dispose()
    service.send_notification("x", topic="all")
    assert seen == []
    assert len(service._taps._index) == 0
    assert not service._taps._open


async def test_one_raising_observer_hurts_nobody(service: NotificationService, caplog: pytest.LogCaptureFixture):
    heard: list[str] = []

    def broken(notification: Notification) -> None:
        heard.append("broken")
        raise RuntimeError("observer broke")

    service.subject.subscribe(broken)
    service.stream("a").subscribe(broken)
    service.stream("a").subscribe(lambda _: heard.append("fine"))
    service.subject.subscribe(lambda _: heard.append("trunk"))
    for _ in range(2):
        assert (await service.send_notification("x", topic="a")).offset
    assert sorted(heard) == ["broken"] * 4 + ["fine"] * 2 + ["trunk"] * 2
    assert service._metrics.observer_failures == 4
    assert "observer broke" in caplog.text


async def test_an_observer_that_sends_does_not_disturb_the_order(service: NotificationService):
    seen: list[int] = []

    def answer(notification: Notification) -> None:
        if notification.topics == ("question",):
            service.send_notification("x", topic="answer")

    service.stream("question").subscribe(answer)
    service.subject.subscribe(lambda n: seen.append(n.position.offset))
    service.send_notification("x", topic="question")
    service.send_notification("x", topic="question")
    assert seen == [1, 2, 3, 4]


async def test_streams_complete_when_the_hub_ends(service: NotificationService):
    ended: list[str] = []
    service.stream("a").subscribe(on_completed=lambda: ended.append("before"))
    service.close()
    service.stream("a").subscribe(on_completed=lambda: ended.append("after"))
    assert ended == ["before", "after"]
    with pytest.raises(ShuttingDown):
        service.send_notification("x")


async def test_another_thread_is_told_which_call_is_for_it(service: NotificationService):
    with pytest.raises(WrongThread, match="send_notification_threadsafe"):
        await asyncio.to_thread(service.send_notification, "x")
    future = await asyncio.to_thread(service.send_notification_threadsafe, "x", topic="a")
    assert (await asyncio.wrap_future(future)).offset == 1
    with pytest.raises(InvalidDraft):
        await asyncio.to_thread(service.send_notification_threadsafe, object())


async def test_threads_lose_nothing(service: NotificationService):
    seen: list[Notification] = []
    service.stream("a").subscribe(seen.append)
    futures = []
    lock = threading.Lock()

    def send(number: int) -> None:
        for turn in range(100):
            future = service.send_notification_threadsafe({"n": [number, turn]}, topic="a")
            with lock:
                futures.append(future)

    await asyncio.gather(*(asyncio.to_thread(send, number) for number in range(4)))
    for future in futures:
        await asyncio.wrap_future(future)
    assert ids(seen) == list(range(1, 401))
    for number in range(4):
        assert [n.data["n"][1] for n in seen if n.data["n"][0] == number] == list(range(100))


async def test_a_key_sends_once(service: NotificationService):
    seen: list[Notification] = []
    service.subject.subscribe(seen.append)
    first, again = (service.send_notification("x", key="k") for _ in range(2))
    assert await first == await again
    assert again.repeated
    assert len(seen) == 1
    assert service._metrics.repeated == 1


async def test_sending_before_the_start_is_kept():
    service = NotificationService(MemoryLog())
    service.send_notification("early")
    service.open()
    assert (await service.send_notification("x")).offset == 2
