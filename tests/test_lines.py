import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from hub.cli.lines import LineFormatter, Lines


class Stream(io.StringIO):
    """Remembers its writes one by one; refuses them while it is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.broken = False

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError
        self.writes.append(text)
        return len(text)


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def logger(stream: Stream) -> Iterator[logging.Logger]:
    handler = Lines(stream)
    logger = logging.getLogger("tests.lines")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


async def test_the_lines_of_one_turn_are_one_write(stream: Stream, logger: logging.Logger):
    for number in range(3):
        logger.info("line %d", number)
    assert not stream.writes
    await asyncio.sleep(0)
    assert stream.writes == ["line 0\nline 1\nline 2\n"]
    logger.info("another turn")
    await asyncio.sleep(0)
    assert stream.writes[1:] == ["another turn\n"]


async def test_a_warning_goes_out_at_once_and_in_order(stream: Stream, logger: logging.Logger):
    logger.info("before")
    logger.warning("now")
    assert stream.writes == ["before\nnow\n"]
    logger.info("after")
    await asyncio.sleep(0)
    assert stream.writes == ["before\nnow\n", "after\n"]


def test_without_a_loop_each_line_goes_out_at_once(stream: Stream, logger: logging.Logger):
    logger.info("a")
    logger.info("b")
    assert stream.writes == ["a\n", "b\n"]


async def test_other_threads_write_at_once_and_in_order(stream: Stream, logger: logging.Logger):
    logger.info("the loop's")
    await asyncio.to_thread(logger.warning, "a thread's")
    assert "".join(stream.writes) == "the loop's\na thread's\n"


def test_nothing_waits_for_a_loop_that_has_ended(stream: Stream, logger: logging.Logger):
    async def last_words() -> None:
        logger.info("stopped")

    asyncio.run(last_words())
    logger.info("after the loop")
    assert "".join(stream.writes) == "stopped\nafter the loop\n"


async def test_a_reader_that_has_gone_stops_nobody(stream: Stream, logger: logging.Logger):
    stream.broken = True
    logger.info("lost")
    await asyncio.sleep(0)
    logger.warning("lost, too")
    stream.broken = False
    logger.warning("back")
    assert stream.writes == ["back\n"]


def raised() -> Exception:
    try:
        int("x")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("error", [None, raised()])
@pytest.mark.parametrize("at", [0.0, 1e9 + 0.04, 1e9 + 0.9994, 2e9])
def test_a_line_reads_as_the_standard_library_would_write_it(at: float, error: Exception | None):
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("hub.x", logging.ERROR, "", 0, "it %s %d", ("is", 1), info)
    record.created, record.msecs = at, (at - int(at)) * 1000
    usual = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    assert LineFormatter().format(record) == usual.format(record)
