"""Places where a test lets this process die, to see what it leaves behind. An instrument of the tests.

``COMMUNICATION_CRASH_AT=name`` ends the process at that point, as ``kill -9`` would; ``name:3`` at
the third pass. It is read once, when the package is imported. Never set it where messages matter.
"""

from __future__ import annotations

import logging
import os
import threading

from ..errors import SettingError

log = logging.getLogger(__name__)

VARIABLE = "COMMUNICATION_CRASH_AT"
# What kill -9 would give is 137; this one tells a planned death from any other.
EXIT_CODE = 9

# "written" is before the commit, "committed" after it.
POINTS: dict[str, str] = {
    "accept.written": "a message is inserted, and the caller has not been told",
    "accept.committed": "it is kept, and no worker has been rung for",
    "accept.rung": "the bell was rung, and the caller has not been told",
    "claim.written": "a worker has chosen what it takes up",
    "claim.committed": "it has taken it up, and done nothing yet",
    "start.written": "the attempt is inserted",
    "start.committed": "the attempt is kept, and nobody is dialling yet",
    "call.begun": "the provider is about to be called",
    "call.ended": "the provider has answered, and only this thread knows",
    "settle.written": "the answer is written down",
    "settle.committed": "the answer is kept, and no signal has been sent",
    "ask.claimed": "the worker is about to ask for delivery reports",
    "ask.answered": "the reports have come, and only this thread knows",
    "land.written": "the reports are written down",
    "land.committed": "the reports are kept, and no signal has been sent",
    "rescue.found": "messages of a stopped worker were found",
    "rescue.written": "they have been moved on",
    "rescue.committed": "that is kept, and nobody has been told",
    "decide.written": "a person's decision is written down",
    "decide.committed": "it is kept, and no worker has been rung for",
    "inbox.fetched": "mails have come, and only this process knows",
    "inbox.written": "they are inserted, with how far the mailbox is read",
    "inbox.filed": "they are kept, and no signal has been sent",
}

_lock = threading.Lock()
_wanted: str | None = None
_passes = 0


def arm(spec: str | None) -> None:
    """Choose where this process dies: ``name``, ``name:N`` for the Nth pass, or None for nowhere.

    Raises :class:`SettingError`, which lists the names.
    """
    global _wanted, _passes
    name, colon, passes = (spec or "").partition(":")
    if spec and (name not in POINTS or (colon and not (passes.isdecimal() and int(passes)))):
        raise SettingError(
            f"{VARIABLE}={spec!r} names no crash point; it is an instrument of the tests: unset "
            f"it, or use NAME or NAME:N with one of {', '.join(POINTS)}"
        )
    _wanted, _passes = name or None, int(passes or 1)
    if _wanted:
        log.warning("%s=%s: this process will kill itself there", VARIABLE, spec)


def crash_point(name: str, about: object = True) -> None:
    """Die here if it was asked for.

    A pass with nothing to do (an empty ``about``) does not count.
    """
    if _wanted == name and about:
        _pass()


def _pass() -> None:
    global _passes
    with _lock:
        _passes -= 1
        if _passes <= 0:
            os._exit(EXIT_CODE)


arm(os.environ.get(VARIABLE))
