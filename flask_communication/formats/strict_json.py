"""Encode and parse JSON strictly: what was parsed can be stored in any database."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ..errors import Refused

_DEEPEST = 32


def encode_json(payload: object) -> bytes:
    """Encode ``payload`` as compact JSON; raise :class:`Refused` for what JSON has no form for."""
    try:
        return json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise Refused(
            f"the message or its configuration cannot be written as JSON ({type(exc).__name__})"
        ) from None


def parse_json(raw: bytes, *, last_wins: bool = False) -> Any:
    """Parse JSON that can be stored; raise ValueError for anything else.

    Refused are other encodings than UTF-8, a byte order mark, NaN and infinities, a key given
    twice, more than 32 levels, and the characters databases choke on (NUL, lone surrogates). With
    ``last_wins`` a repeated key is no error: the seed's own examples repeat one.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=dict if last_wins else _once,
        )
    except RecursionError:
        raise ValueError("too deeply nested") from None
    # Only an escape can be an unstorable character, and only many brackets can be nested deeply.
    if b"\\u" in raw or raw.count(b"[") + raw.count(b"{") > _DEEPEST:
        _check_storable(value)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number too large")
    return number


def _once(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _check_storable(root: object) -> None:
    level = [root]
    for _ in range(_DEEPEST + 1):
        if not level:
            return
        deeper: list[object] = []
        for value in level:
            if isinstance(value, dict):
                deeper += value.keys()
                deeper += value.values()
            elif isinstance(value, list):
                deeper += value
            elif isinstance(value, str) and not _storable(value):
                raise ValueError("a character that cannot be stored")
        level = deeper
    raise ValueError("too deeply nested")


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
