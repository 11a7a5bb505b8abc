import logging

import pytest

from hub.cli.logs import LineFormatter


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
