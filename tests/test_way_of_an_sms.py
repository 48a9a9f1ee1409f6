"""The way of an SMS, from ``send_msg`` to the vendor: which files it enters, traced at run time."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask

import flask_communication
from flask_communication import SMS
from flask_communication.providers.simulator import Simulator
from tests.support.apps import MakeApp, install, work

HOUSE = str(Path(flask_communication.__file__).parent)
END = str(Path(HOUSE, "providers", "simulator.py"))
TO, TEXT = "+919999911111", "The way of an SMS"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4")
MOST_FILES = 12


def carries(thing: Any, depth: int = 4) -> bool:
    """Tell whether a value holds the message: its text, alone or within another value."""
    if isinstance(thing, str):
        return TEXT in thing
    if depth == 0:
        return False
    if is_dataclass(thing) and not isinstance(thing, type):
        return any(carries(getattr(thing, one.name, None), depth - 1) for one in fields(thing))
    if isinstance(thing, Mapping):
        return any(carries(one, depth - 1) for one in thing.values())
    if isinstance(thing, list | tuple):
        return any(carries(one, depth - 1) for one in thing[:5])
    return False


def names(thing: Any) -> bool:
    """Tell whether a value holds the message, its number, or its uuid."""
    return TEXT in repr(thing) or TO in repr(thing) or UUID.search(repr(thing)) is not None


@contextmanager
def traced() -> Iterator[list[str]]:
    """Give the files that get the message and hand it on: as an argument, or as their result.

    What only looks at it (a count of segments, a limit, a crash point) is not on its way; the
    provider is its end.
    """
    found: dict[str, None] = {}
    holds: dict[int, bool] = {}

    def look(frame: FrameType, event: str, arg: Any) -> None:
        file = frame.f_code.co_filename
        if not file.startswith(HOUSE) or event not in ("call", "return"):
            return
        if event == "return":
            if holds.pop(id(frame), False) and names(arg):
                found[file] = None
            return
        holds[id(frame)] = any(map(carries, frame.f_locals.values()))
        caller = frame.f_back
        if holds[id(frame)] and caller is not None:
            before = caller.f_code.co_filename
            if before != file and before.startswith(HOUSE) and holds.get(id(caller)):
                found[before] = None
            if file == END:
                found[file] = None

    files: list[str] = []
    threading.setprofile(look)
    sys.setprofile(look)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        files += [str(Path(file).relative_to(HOUSE)) for file in found]


def test_the_way_of_an_sms_enters_few_files(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    app: Flask = make_app(upgraded_sqlite_url)
    install(app, Simulator())
    with app.app_context(), traced() as files:
        uuid = SMS.send_msg(TO, TEXT)
        work(app)
        assert SMS.get(uuid).status == "sent"
    print("\n".join(files))
    assert len(files) <= MOST_FILES
