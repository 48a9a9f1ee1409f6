"""``flask communication``: errors of one line, progress, and the group itself."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest
from flask import Flask

from flask_communication.configs.state import state_of
from tests.support.commands import run

MakeApp = Callable[..., Flask]
TO = "+919999911111"


def test_the_command_is_there_for_each_application(app: Flask) -> None:
    told = run(app, "--help")
    for command in ("worker", "upgrade", "sync", "send-sms", "messages", "show", "config", "token"):
        assert command in told
    assert state_of(app).settings.queue == "communication"


@pytest.mark.parametrize(
    "words",
    [
        ["show", "no-such-uuid"],
        ["messages", "--status", "asleep"],
        ["messages", "--after", "x"],
        ["send-sms", "nobody", "Hello"],
        ["config", "add", "--type", "pigeon", "--provider-pkg-name", "x"],
        ["config", "add", "--type", "sms", "--provider-pkg-name", "x", "--rate", "1e-300"],
        ["config", "add", "--type", "sms", "--provider-pkg-name", "x", "--rate", "nan"],
        ["config", "add", "--type", "sms", "--provider-pkg-name", "x", "--rate", "inf"],
        ["suppression", "list", "--after", "999999999999999999"],
        ["messages", "--key", "zzz"],
        ["erase", "", "--yes"],
        ["erase", " \t", "--yes"],
        ["config", "list", "--type", "fax"],
        ["token", "create", "me", "--scope", "bogus"],
        ["token", "create", "me", "--scope", "*", "--days", "nan"],
        ["token", "create", "me", "--scope", "*", "--days", "1e300"],
        ["token", "create", "me", "--scope", "*", "--days", "-1"],
        ["token", "create", "me", "--scope", "*", "--days", "0"],
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(app: Flask, words: list[str]) -> None:
    told = run(app, *words, expect=1)
    assert told.startswith("Error: ")
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "words", [["messages"], ["send-sms", TO, "Hello"], ["config", "list"], ["prune"]]
)
def test_a_database_that_is_away_is_one_line(make_app: MakeApp, words: list[str]) -> None:
    told = run(make_app("postgresql+psycopg://nobody@127.0.0.1:1/none"), *words, expect=1)
    assert told.startswith("Error: the database cannot be used: ")
    assert len(told.splitlines()) == 1


def test_a_person_who_watches_sees_the_progress_replaced_by_the_result() -> None:
    controller, terminal = pty.openpty()
    code = (
        "import sys; from flask_communication.cli.command import progress;"
        "progress('1 of 2'); progress('2 of 2'); progress(''); print('done')"
    )
    subprocess.run([sys.executable, "-c", code], stderr=terminal, stdout=terminal, check=True)
    os.close(terminal)
    assert os.read(controller, 1000).decode() == "\r\x1b[K1 of 2\r\x1b[K2 of 2\r\x1b[Kdone\r\n"
    os.close(controller)
