import pytest

from hub.connections.resume import Start, position_asked, start
from hub.encoding import GapReason
from hub.log.log import located
from hub.notification import Position

NEWEST = Position("e1", 100)
ENDED = {"e0": 40}


def begin(asked: str | None, trimmed: int = 0) -> Start:
    position = position_asked(asked)
    where = None if position is None else located(position, NEWEST, ENDED)
    return start(asked, located=where, trimmed=lambda after: trimmed if trimmed > after else 0)


@pytest.mark.parametrize("asked", [None, ""])
def test_who_asks_for_nothing_begins_with_what_is_new(asked: str | None):
    assert begin(asked) == Start(None)
    assert begin(asked).recovered is None


@pytest.mark.parametrize("asked", ["e1-0", "e1-42", "e1-100"])
def test_a_known_id_is_recovered(asked: str):
    assert begin(asked) == Start(int(asked.removeprefix("e1-")), known=True)
    assert begin(asked).recovered is True


@pytest.mark.parametrize(
    "asked", ["e1-101", "e1-007", "e1--1", "e1-", "-5", "e1", "e1-5 ", "é-1", "e1-٣", "x" * 9999, "e1-" + "9" * 30]
)
def test_an_id_this_hub_never_wrote_is_unknown_and_all_that_is_kept_follows(asked: str):
    assert begin(asked) == Start(0, GapReason.UNKNOWN)


def test_an_id_of_another_epoch_is_a_gap():
    assert begin("e9-42") == Start(0, GapReason.EPOCH)


def test_an_id_of_an_earlier_epoch_is_recovered_as_far_as_is_known_of_that():
    assert begin("e0-40") == Start(40, known=True)
    assert begin("e0-40", trimmed=41) == Start(40, GapReason.TRIMMED)
    assert begin("e0-41") == Start(0, GapReason.EPOCH), "who has seen more has seen what is not here"


@pytest.mark.parametrize("asked", [None, "", "earliest", "latest", "e1", "é-1"])
def test_what_names_no_position_needs_none_located(asked: str | None):
    assert position_asked(asked) is None


def test_what_was_trimmed_after_the_id_is_a_gap_and_what_was_trimmed_before_is_none():
    assert begin("e1-42", trimmed=43) == Start(42, GapReason.TRIMMED)
    assert begin("e1-42", trimmed=42) == Start(42, known=True)
    assert begin("e1-42", trimmed=43).recovered is False


def test_the_earliest_is_all_that_is_kept_and_the_latest_the_newest_of_each_topic():
    assert begin("earliest", trimmed=7) == Start(0)
    assert begin("latest", trimmed=7) == Start(0, latest=True)
    assert begin("earliest").recovered is begin("latest").recovered is True
