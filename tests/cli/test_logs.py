import json
import logging

import pytest

from hub.cli.logs import JsonFormatter, LineFormatter


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('"GET /a?ticket=secret HTTP/1.1" 200', '"GET /a?… HTTP/1.1" 200'),
        (
            "HTTP Request: POST https://api.example/v1?key=secret&x=1 done",
            "HTTP Request: POST https://api.example/v1?… done",
        ),
        ("URL('http://h/a/?token=secret')", "URL('http://h/a/?…')"),
        ("http://[::1]:80?secret", "http://[::1]:80?…"),
        ("did you mean HUB_HEARTBEAT? or not?", "did you mean HUB_HEARTBEAT? or not?"),
        ("what is '?' here, (?P<x>y)", "what is '?' here, (?P<x>y)"),
    ],
)
def test_no_line_shows_the_query_of_a_url(text: str, shown: str):
    record = logging.LogRecord("httpx", logging.INFO, "", 0, "%s", (text,), None)
    assert LineFormatter().format(record).endswith(f" INFO httpx: {shown}")


def test_nor_does_a_traceback():
    error = ValueError("https://api.example/?key=secret")
    info = (type(error), error, raised().__traceback__)
    line = LineFormatter().format(logging.LogRecord("x", logging.ERROR, "", 0, "it failed", (), info))
    assert line.endswith("ValueError: https://api.example/?…")


def json_line(record: logging.LogRecord, process: str = "") -> dict[str, str]:
    line = JsonFormatter(process).format(record)
    assert line.isprintable()
    said: dict[str, str] = json.loads(line)
    return said


def test_a_line_of_json_has_the_facts_and_no_query():
    error = ValueError("https://api.example/?key=secret\nsecond line")
    info = (type(error), error, raised().__traceback__)
    record = logging.LogRecord(
        "hub.x", logging.WARNING, "", 0, "GET /%s?ticket=secret \x1b\n三\x85\u2028\x9b", ("a",), info
    )
    record.created = 1e9 + 0.04
    said = json_line(record, "worker 2")
    assert said.pop("error").endswith("ValueError: https://api.example/?…\nsecond line")
    assert said == {
        "time": "2001-09-09T01:46:40.040Z",
        "level": "warning",
        "logger": "hub.x",
        "worker": "2",
        "message": "GET /a?… \x1b\n三\x85\u2028\x9b",
    }
    plain = json_line(logging.LogRecord("hub", logging.INFO, "", 0, "100 %", (), None))
    assert plain.keys() == {"time", "level", "logger", "message"}
