"""When a client tries again, and for how long: decided without a socket, with a clock of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from hub.client.errors import Busy, ClientError, NotAHub, NotAuthenticated, NotValid, Unreachable
from hub.client.listening import Course, Following, Opened, Pause, Shown, Told
from hub.client.publishing import batches, one, publish_all, publish_one
from hub.client.received import Gap, Received
from hub.client.steps import Answer, Ask, Chance, Open, Read, Shut, Sleep, Steps, Token, full_jitter
from hub.errors import InvalidDraft
from hub.eventstream import block

URL = "http://hub"
ACCEPTED = (201, {"id": "e-1"})


def answer(status: int, facts: object, **headers: str) -> Answer:
    kind = "application/json" if status < 400 else "application/problem+json"
    said = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Answer(URL, status, "", said, json.dumps(facts).encode())


def problem(status: int, **facts: str) -> Answer:
    headers = {"retry_after": facts.pop("after")} if "after" in facts else {}
    return answer(status, {"detail": "no", **facts}, **headers)


class Play:
    """Answers the steps of a client from a script, on a clock that only its waits move, and requests by *takes*.

    Attributes:
        asked: the requests.
        waited: the seconds of each wait.
        tokens: those given out, the first one first.
    """

    def __init__(
        self, *script: Answer | Exception, tokens: tuple[str | None, ...] = (None,), takes: float = 0.0
    ) -> None:
        self._script: Iterator[Answer | Exception] = iter(script)
        self._takes = takes
        self._tokens = iter(tokens)
        self.now = 0.0
        self.asked: list[Ask] = []
        self.waited: list[float] = []
        self.chance = Chance(clock=lambda: self.now, uniform=lambda least, most: most)

    def run(self, make: Callable[[Chance], Steps[Any]]) -> Any:
        steps = make(self.chance)
        result: object = None
        error: Exception | None = None
        while True:
            try:
                step = steps.send(result) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            result = error = None
            match step:
                case Ask():
                    self.asked.append(step)
                    self.now += self._takes
                    said = next(self._script)
                    result, error = (None, said) if isinstance(said, Exception) else (said, None)
                case Token():
                    result = next(self._tokens, None)
                case Sleep():
                    self.waited.append(step.seconds)
                    self.now += step.seconds


def lost() -> Unreachable:
    return Unreachable(URL, "Connection refused")


def publish(play: Play, patience: float = 10.0) -> Any:
    return play.run(lambda chance: publish_one(one({"data": 1}, None), patience, chance))


def test_a_retry_has_the_same_key() -> None:
    play = Play(lost(), problem(503, after="2"), answer(*ACCEPTED))
    assert str(publish(play)) == "e-1"
    bodies = [json.loads(ask.body or b"") for ask in play.asked]
    assert bodies[0] == bodies[1] == bodies[2]
    assert len(bodies[0]["key"]) >= 20


def test_each_draft_has_a_key_of_its_own_unless_it_brings_one() -> None:
    drafts: list[dict[str, object]] = [{"data": 1}, {"data": 1}, {"data": 1, "key": "mine"}]
    (batch,) = batches(drafts, None)
    keys = [each["key"] for each in json.loads(batch.body)]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_waits_grow_and_retry_after_is_waited_in_full() -> None:
    play = Play(lost(), lost(), problem(503, after="2"), lost(), answer(*ACCEPTED))
    publish(play)
    assert play.waited == [0.25, 0.5, 3.0, 2.0]


def test_there_are_three_tries_even_without_patience() -> None:
    play = Play(lost(), lost(), lost())
    with pytest.raises(Unreachable):
        publish(play, patience=0)
    assert len(play.asked) == 3


def test_no_try_begins_when_the_hub_may_have_forgotten_the_key() -> None:
    play = Play(lost(), lost(), lost(), takes=150)
    with pytest.raises(Unreachable):
        publish(play, patience=0)
    assert len(play.asked) == 2


def test_patience_ends() -> None:
    play = Play(*(lost() for _ in range(100)))
    with pytest.raises(Unreachable):
        publish(play, patience=20)
    assert 15 <= play.now <= 20


def test_what_the_hub_wants_to_be_asked_again_too_late_is_an_error_at_once() -> None:
    play = Play(problem(429, after="60"))
    with pytest.raises(Busy) as refused:
        publish(play)
    assert (refused.value.retry_after, play.waited) == (60.0, [])


@pytest.mark.parametrize("status", [400, 403, 404, 413, 415, 422])
def test_what_would_be_refused_again_is_not_tried_again(status: int) -> None:
    play = Play(problem(status))
    with pytest.raises(ClientError):
        publish(play)
    assert len(play.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int) -> None:
    play = Play(problem(status), answer(*ACCEPTED))
    publish(play)
    assert len(play.asked) == 2


def test_a_refused_token_is_renewed_once() -> None:
    play = Play(problem(401, code="token_expired"), answer(*ACCEPTED), tokens=("old", "new"))
    publish(play)
    assert [ask.token for ask in play.asked] == ["old", "new"]
    play = Play(problem(401), problem(401), tokens=("old", "new", "newer"))
    with pytest.raises(NotAuthenticated):
        publish(play)
    play = Play(problem(401), tokens=("same", "same"))
    with pytest.raises(NotAuthenticated):
        publish(play)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"id": "not an id"},
        {"id": 7},
        [],
        [{"id": "e-1"}],
        None,
        "e-1",
    ],
)
def test_an_answer_that_no_hub_gives_is_none(facts: object) -> None:
    with pytest.raises(NotAHub):
        publish(Play(answer(201, facts)))


def test_an_error_tells_what_was_accepted_before() -> None:
    first = answer(201, [{"id": f"e-{n}"} for n in range(1, 1001)])
    play = Play(first, problem(400, field="[3].type"))
    drafts = ({"data": n} for n in range(1_500))
    with pytest.raises(NotValid) as refused:
        play.run(lambda chance: publish_all(batches(drafts, None), 10, chance))
    assert [each.offset for each in refused.value.accepted] == list(range(1, 1001))


@pytest.mark.parametrize(("bad", "field"), [("no draft", "[1200]"), ({"data": object()}, "[1200].data")])
def test_a_draft_that_is_none_tells_where_it_is_and_what_was_accepted_before(bad: Any, field: str) -> None:
    play = Play(answer(201, [{"id": f"e-{n}"} for n in range(1, 1001)]))
    drafts = (bad if n == 1_200 else {"data": n} for n in range(1_500))
    with pytest.raises(InvalidDraft) as refused:
        play.run(lambda chance: publish_all(batches(drafts, None), 10, chance))
    assert refused.value.field == field
    assert [each.offset for each in refused.value.accepted] == list(range(1, 1001))


def test_batches_have_a_thousand_drafts_or_a_mebibyte() -> None:
    sizes = [batch.number for batch in batches(({"data": n} for n in range(2_001)), None)]
    assert sizes == [1_000, 1_000, 1]
    large = list(batches(({"data": "x" * 300_000} for _ in range(7)), None))
    assert [batch.number for batch in large] == [3, 3, 1]
    assert all(len(batch.body) <= 1024 * 1024 for batch in large)
    assert [batch.number for batch in batches([{"data": "x" * 2_000_000}, {"data": 1}], None)] == [1, 1]
    with pytest.raises(InvalidDraft, match=r"\[1\]"):
        list(batches([{"data": 1}, "data"], None))  # type: ignore[list-item]


def test_full_jitter_is_anything_up_to_a_bound_that_doubles_and_ends() -> None:
    bounds = [full_jitter(Chance(uniform=lambda least, most: most), n, 0.5, 30.0) for n in range(200)]
    assert bounds[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert set(bounds[6:]) == {30}
    assert full_jitter(Chance(uniform=lambda least, most: least), 5, 0.5, 30.0) == 0


# ---- a stream ----


class Stream(NamedTuple):
    """One connection: the parts that arrive, and how it is lost (None: the hub ends it)."""

    parts: tuple[bytes, ...]
    lost: Exception | None = None


STREAM = Answer(URL, 200, "OK", {"content-type": "text/event-stream"}, b"")


class Listener:
    """Plays the network for one stream, until the script is over.

    Attributes:
        items: what it got.
        cursors: the `Last-Event-ID` of each request.
        told: what whoever watches was told.
    """

    def __init__(
        self, *script: Stream | Answer | Exception, tokens: tuple[str | None, ...] = (None,), cursor: str = ""
    ) -> None:
        self.now = 0.0
        self.items: list[object] = []
        self.cursors: list[str | None] = []
        self.tokens_sent: list[str | None] = []
        self.told: list[object] = []
        self.waited: list[float] = []
        self._script = list(script)
        self._tokens = iter(tokens)
        chance = Chance(clock=lambda: self.now, uniform=lambda least, most: most)
        self.following = Following(("a",), cursor, 10.0, chance)

    def run(self) -> None:
        course: Course = self.following.course()
        parts: Iterator[bytes] = iter(())
        ending: Exception | None = None
        result: object = None
        error: Exception | None = None
        while True:
            step = course.send(result) if error is None else course.throw(error)
            result = error = None
            match step:
                case Open():
                    if not self._script:
                        return
                    self.cursors.append(step.ask.headers.get("Last-Event-ID"))
                    self.tokens_sent.append(step.ask.token)
                    match self._script.pop(0):
                        case Stream() as stream:
                            parts, ending, result = iter(stream.parts), stream.lost, STREAM
                        case Answer() as said:
                            result = said
                        case Exception() as failure:
                            error = failure
                case Read():
                    part = next(parts, b"")
                    result, error = part, (ending if not part else None)
                case Sleep():
                    self.waited.append(step.seconds)
                    self.now += step.seconds
                case Token():
                    result = next(self._tokens, None)
                case Told():
                    self.told.append(step.what)
                case Shown():
                    self.items.append(step.item)
                case Opened() | Shut():
                    pass


OPEN = block('{"recovered":null}', type="hub.open", id="e-1", retry=2_000)


def message(number: int) -> bytes:
    return block(f'{{"topic":"a","data":{number}}}', id=f"e-{number}")


def close(reason: str, retry: int = 1_000) -> bytes:
    return block(json.dumps({"reason": reason}), type="hub.close", retry=retry)


def test_a_lost_stream_goes_on_after_the_last_notification_that_was_complete() -> None:
    cut = message(3)[:-1]
    listener = Listener(Stream((OPEN + message(2) + cut,), lost()), Stream((OPEN, message(3))))
    listener.run()
    assert [each.data for each in listener.items if isinstance(each, Received)] == [2, 3]
    assert listener.cursors == [None, "e-2"]
    assert listener.following.cursor == "e-3"


def test_a_heartbeat_moves_the_cursor() -> None:
    listener = Listener(Stream((OPEN, b":\nid: e-9\n\n")), Stream((OPEN,)))
    listener.run()
    assert listener.cursors == [None, "e-9"]


def test_it_comes_back_when_the_hub_says_and_then_ever_later() -> None:
    listener = Listener(Stream((OPEN,)), lost(), lost(), lost(), lost(), lost(), Stream((OPEN,)), lost())
    listener.run()
    assert listener.waited == [2, 4, 8, 16, 30, 30, 2, 4]
    pauses = [each for each in listener.told if isinstance(each, Pause)]
    assert [each.seconds for each in pauses] == listener.waited
    assert [each.error is None for each in pauses] == [True, *[False] * 5, True, False]


def test_a_hub_that_was_never_there_is_waited_for_as_long_as_patience_lasts() -> None:
    listener = Listener(*(lost() for _ in range(100)))
    with pytest.raises(Unreachable):
        listener.run()
    assert 5 <= listener.now <= 10


def test_a_hub_that_says_not_now_is_waited_for_as_it_says() -> None:
    listener = Listener(problem(503, after="20"), Stream((close("capacity", 30_000),)), Stream((OPEN,)))
    listener.run()
    assert listener.waited == [20 + 6, 30, 2], "and no two at the same moment"


def test_a_hub_that_is_full_and_wants_no_pause_is_no_storm() -> None:
    listener = Listener(*(problem(503, after="0") for _ in range(7)))
    listener.run()
    assert listener.waited == [6, 12, 24, 30, 30, 30, 30]


def test_streams_that_end_before_they_begin_are_no_hub_at_all() -> None:
    listener = Listener(*(Stream((b"retry: 0\n\n",)) for _ in range(100)))
    with pytest.raises(Unreachable, match="before it began"):
        listener.run()
    assert 5 <= listener.now <= 10
    listener = Listener(Stream((OPEN,)), *(Stream(()) for _ in range(3)))
    listener.run()
    assert listener.waited == [2, 4, 8, 16], "once it was there, it is waited for, ever longer"


@pytest.mark.parametrize("retry", ["9" * 5_000, "9" * 400, "9" * 18])
def test_a_time_that_no_clock_has_is_a_day_at_most(retry: str) -> None:
    said = f"retry: {retry}\n\n".encode()
    listener = Listener(Stream((OPEN + said + message(2),)))
    listener.run()
    assert len(listener.items) == 1
    assert listener.waited[0] in {2, 86_400}


@pytest.mark.parametrize(
    "reason", ["unauthorized", "token_invalid", "token_expired", "revoked", "forbidden", "replaced"]
)
def test_an_end_that_can_not_get_better_is_an_error(reason: str) -> None:
    listener = Listener(Stream((OPEN, close(reason))), tokens=("only",))
    with pytest.raises(ClientError) as ended:
        listener.run()
    assert getattr(ended.value, "code", "") == reason
    assert listener.waited == []


def test_a_token_that_expires_is_renewed_and_the_stream_goes_on() -> None:
    script = (Stream((OPEN, message(2), close("token_expired"))), problem(401), Stream((OPEN, message(3))))
    listener = Listener(*script, tokens=("one", "one", "two"))
    listener.run()
    assert listener.tokens_sent[:3] == ["one", "one", "two"]
    assert [each.data for each in listener.items if isinstance(each, Received)] == [2, 3]


def test_a_token_that_is_refused_again_and_again_is_no_storm() -> None:
    listener = Listener(problem(401), problem(401), tokens=("one", "two", "three"))
    with pytest.raises(NotAuthenticated):
        listener.run()
    assert listener.tokens_sent == ["one", "two"]
    expired = [Stream((OPEN, close("token_expired"))) for _ in range(10)]
    listener = Listener(*expired, tokens=tuple(f"t{n}" for n in range(11)))
    listener.run()
    assert listener.waited == [1.0] * 10, "as often as the hub said"


def test_a_gap_is_told_once_and_in_its_place() -> None:
    opened = block('{"recovered":false,"reason":"trimmed","oldest":"e-7"}', type="hub.open", id="e-6")
    gap = block('{"recovered":false,"reason":"trimmed","oldest":"e-7"}', type="hub.gap")
    listener = Listener(Stream((opened + gap + message(7),)), cursor="e-2")
    listener.run()
    assert listener.items[0] == Gap("e-6", "trimmed", "e-7")
    assert len(listener.items) == 2


def test_a_block_without_an_end_is_not_read_for_ever() -> None:
    listener = Listener(Stream((OPEN, *(b"data: " + b"x" * 1024 * 1024 for _ in range(20)))))
    with pytest.raises(NotAHub, match="block"):
        listener.run()


def test_an_id_that_no_hub_writes_breaks_no_request() -> None:
    listener = Listener(Stream(("id: é\x01\nevent: hub.open\ndata: {}\n\n".encode(),)), Stream((OPEN,)))
    listener.run()
    assert listener.cursors == [None, "%C3%A9%01"]


@pytest.mark.parametrize(
    ("envelope", "topics", "data"),
    [
        ('{"topic":"a","data":{"n":1}}', ("a",), {"n": 1}),
        ('{"topic":"a\\"}","data":"x\\n"}', ('a"}',), "x\n"),
        ('{"topics":["a","b/c"],"data":[1,"]"]}', ("a", "b/c"), [1, "]"]),
        ('{"topics":[],"data":null}', (), None),
        ('{"id":"e-1","topics":["a"],"data":"x"}', ("a",), "x"),
        ("plain", (), "plain"),
        ('{"topic":"\\q","data":1}', (), '{"topic":"\\q","data":1}'),
        ('{"topic":"a","data":"b}', (), '{"topic":"a","data":"b}'),
        ('{"id":"\\u1","topics":["a"],"data":1}', (), '{"id":"\\u1","topics":["a"],"data":1}'),
    ],
)
def test_an_envelope_is_opened(envelope: str, topics: tuple[str, ...], data: object) -> None:
    listener = Listener(Stream((OPEN, block(envelope, id="e-2", type="t"))))
    listener.run()
    (received,) = listener.items
    assert isinstance(received, Received)
    assert (received.topics, received.data, received.type) == (topics, data, "t")
