"""Crash points: named places in the code where a test kills the process, as ``kill -9`` would.

``COMMUNICATION_CRASH_AT=name`` ends the process at that point, ``name:3`` at the third pass. The
variable is read when the package is imported. It has an effect only with
``COMMUNICATION_TESTING=1``, so that one variable alone never kills a worker in production.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from ..errors import SettingError

log = logging.getLogger(__name__)

VARIABLE = "COMMUNICATION_CRASH_AT"
TESTING = "COMMUNICATION_TESTING"
# Not the 137 of kill -9, so that a test can tell its own crash from any other.
EXIT_CODE = 9

# "written" is before a commit, "committed" after it.
POINTS: dict[str, str] = {
    "accept.written": "a message is inserted and not committed",
    "accept.committed": "the message is committed, and no worker has been woken",
    "accept.rung": "the bell was rung, and the caller has not got the uuid",
    "claim.written": "a worker has claimed messages and not committed",
    "claim.committed": "the claim is committed, and nothing else was done",
    "start.written": "the attempt is inserted and not committed",
    "start.committed": "the attempt is committed, and no request was made",
    "call.begun": "the request to the provider is about to be made",
    "call.ended": "the provider has answered, and only this thread knows",
    "settle.written": "the answer is written and not committed",
    "settle.committed": "the answer is committed, and no signal was sent",
    "ask.claimed": "a worker is about to ask for delivery reports",
    "ask.answered": "the reports have arrived, and only this thread knows",
    "land.written": "the reports are written and not committed",
    "land.committed": "the reports are committed, and no signal was sent",
    "rescue.found": "messages of a stopped worker were found",
    "rescue.written": "they were moved on, and this is not committed",
    "rescue.committed": "the rescue is committed, and no signal was sent",
    "decide.written": "a person's decision is written and not committed",
    "decide.committed": "the decision is committed, and no worker has been woken",
    "inbox.fetched": "mails have arrived, and only this process knows",
    "inbox.written": "the mails and the mailbox's position are written and not committed",
    "inbox.filed": "the mails are committed, and no signal was sent",
}

_lock = threading.Lock()
_armed: str | None = None
_passes = 0


def arm(spec: str | None) -> None:
    """Choose where this process crashes: ``name``, ``name:N`` for the Nth pass, None for nowhere.

    Only tests call this. Raises :class:`SettingError`, which lists the names.
    """
    global _armed, _passes
    name, colon, passes = (spec or "").partition(":")
    if spec and (name not in POINTS or (colon and not (passes.isdecimal() and int(passes)))):
        raise SettingError(
            f"{VARIABLE}={spec!r} names no crash point; unset it, or use NAME or NAME:N with one of"
            f" {', '.join(POINTS)}"
        )
    _armed, _passes = name or None, int(passes or 1)
    if _armed:
        log.warning("%s=%s: this process will kill itself there", VARIABLE, spec)


def arm_by_environment(environ: Mapping[str, str]) -> None:
    """Arm the crash point that the environment names, in testing mode only."""
    spec = environ.get(VARIABLE)
    if spec and environ.get(TESTING) != "1":
        log.warning("%s=%s has no effect without %s=1; unset it", VARIABLE, spec, TESTING)
        return
    arm(spec)


def crash_point(name: str, about: object = True) -> None:
    """End this process if the point is armed.

    A pass with nothing to do (an empty ``about``) does not count.
    """
    if _armed == name and about:
        _pass()


def _pass() -> None:
    global _passes
    with _lock:
        _passes -= 1
        if _passes <= 0:
            os._exit(EXIT_CODE)


arm_by_environment(os.environ)
