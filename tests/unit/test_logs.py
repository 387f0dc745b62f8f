"""The log: its two forms, what it does when nobody reads it, and the ration of a storm."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from service import logs
from service.logs import Json, Outlet, Ration, Text, fields

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Reader and writer; the test may close the reader."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)


def record(message: str = "it is", error: BaseException | None = None, **given: Any) -> logging.LogRecord:
    """What a logger makes of a call."""
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("service.x", logging.WARNING, "x.py", 1, message, (), exc_info)
    made.created = 0.25
    vars(made).update(fields(**given))
    return made


def raised(message: str) -> ValueError:
    """Make an error with a traceback."""
    with pytest.raises(ValueError, match=message) as caught:
        raise ValueError(message)
    return caught.value


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_json_is_an_object_a_line() -> None:
    """Time, level, logger and message come first, then the fields that are known."""
    line = Json().format(record(request_id="one", trace_id=None, ms=1.5))
    assert list(json.loads(line).items()) == [
        ("time", "1970-01-01T00:00:00.250000+00:00"),
        ("level", "warning"),
        ("logger", "service.x"),
        ("message", "it is"),
        ("request_id", "one"),
        ("ms", 1.5),
    ]


def test_json_of_an_error_is_one_line() -> None:
    """The traceback is a string in the object."""
    line = Json().format(record(error=raised("two\nlines")))
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: two\nlines")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param(ValueError("no"), "no", id="object"),
        pytest.param("\udcff", "\udcff", id="no-utf8"),
        pytest.param({"a": [ValueError("\udcff")]}, {"a": ["\udcff"]}, id="both"),
    ],
)
def test_json_takes_anything(value: object, written: object) -> None:
    """What JSON does not know is written as text, and what UTF-8 does not know is escaped."""
    line = Json().format(record(value=value))
    assert line.encode()
    assert json.loads(line)["value"] == written


def test_text_has_the_fields_behind_the_message() -> None:
    """Fields follow the message, and a traceback follows both."""
    first, *rest = Text().format(record(error=raised("no"), request_id="one", ms=1.5)).splitlines()
    assert first.endswith(" WARNING service.x it is request_id=one ms=1.5")
    assert rest[-1] == "ValueError: no"


def test_text_of_a_client_cannot_forge_a_line() -> None:
    """A value with a line break, a blank or a quote stands in quotes, escaped."""
    (line,) = Text().format(record(path='/a\n2026 INFO "all is well"', code="ok")).splitlines()
    assert line.endswith(r' path="/a\n2026 INFO \"all is well\"" code=ok')


def test_lines_arrive_in_order(pipe: Pipe) -> None:
    """After a flush all that was logged has been written, in order."""
    outlet = Outlet(pipe[1])
    outlet.start()
    for i in range(100):
        outlet.handle(record(f"{i}"))
    outlet.flush()
    assert os.read(pipe[0], 1 << 16).decode().split() == [f"{i}" for i in range(100)]


def test_full_pipe_holds_up_nobody(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reader that does not read, logging goes on, loses lines, and says how many when it is read again."""
    monkeypatch.setattr(logs, "MOST_WAITING", 10)
    outlet, root = Outlet(pipe[1]), logging.getLogger()
    outlet.start()
    root.addHandler(outlet)
    try:
        for _ in range(100):
            outlet.handle(record("x" * 65_536))  # a pipe's length
        outlet.flush()  # gives up
        read = b""
        while b"log lines lost" not in read:
            read += os.read(pipe[0], 1 << 20)
    finally:
        root.removeHandler(outlet)
    kept = read.count(b"\n") - 1
    assert 10 <= kept <= 12
    assert f"nobody read them: {100 - kept}\n".encode() in read


def test_reader_that_is_gone_is_no_error(pipe: Pipe) -> None:
    """Lines for nobody are dropped, and the writing goes on."""
    os.close(pipe[0])
    outlet = Outlet(pipe[1])
    outlet.start()
    for _ in range(2):
        outlet.handle(record())
        outlet.flush()
    assert threading.active_count() < 20


def test_line_that_cannot_be_made_is_reported(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A message whose arguments do not fit it is reported as logging does, and stops nobody."""
    outlet, wrong = Outlet(pipe[1]), record("%d")
    wrong.args = ("no number",)
    outlet.handle(wrong)
    assert "Logging error" in capsys.readouterr().err


def test_process_ends_though_nobody_reads() -> None:
    """A process with more to log than its pipe holds ends with its own status when nobody reads."""
    code = (
        "import logging, sys; from service.logs import start_logging; start_logging('info', 'json')\n"
        "for i in range(1000): logging.getLogger('x').info('x' * 1000)\n"
        "sys.exit(3)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        assert process.wait(30) == 3


def test_everything_python_says_itself_is_json() -> None:
    """Warnings, uncaught errors of any thread and what is written past Python are objects too."""
    code = """
import logging, os, threading, warnings
from service.logs import captured, start_logging
start_logging("info", "json")
start_logging("info", "json")  # as a worker's process does
warnings.warn("a warning")
with captured("json"):
    os.write(2, b"from C\\nand \\xff more\\n")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise SystemError("the end")
"""
    done = run(code)
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in found] == ["py.warnings", *["service.logs"] * 4]
    assert [line["message"] for line in found[1:]] == ["from C", "and \ufffd more", "uncaught in a thread", "uncaught"]
    assert [line["exception"].splitlines()[-1] for line in found[3:]] == [
        "ZeroDivisionError: division by zero",
        "SystemError: the end",
    ]
    assert done.returncode == 1


def test_text_leaves_what_python_says_alone() -> None:
    """With a log for people, what is written past it is not held back."""
    done = run(
        "import os; from service.logs import captured, start_logging\n"
        "start_logging('info', 'text')\nwith captured('text'): os.write(2, b'now')\nraise SystemExit(0)"
    )
    assert (done.returncode, done.stderr) == (0, "now")


def test_ration_lets_the_first_few_through() -> None:
    """In each period the first few pass, and the next that passes knows how many did not."""
    ration = Ration(2, 1.0)
    times = [100.0, 100.1, 100.2, 100.9, 101.0, 101.1, 101.2, 200.0]
    assert [ration.take(each) for each in times] == [0, 0, None, None, 2, 0, None, 1]
