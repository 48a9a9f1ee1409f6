"""JSON as strangers send it: what is read can be stored, and nothing breaks the reader."""

from __future__ import annotations

import json
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_communication.errors import Refused
from flask_communication.formats.strict_json import parse_json
from flask_communication.providers.http import Http


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" * 40 + b"]" * 40,
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'"text"',
        b"null",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_no_usable_json_is_none(body: bytes) -> None:
    http = Http(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body)))
    assert http.post_json("http://x/", {}).json is None


@given(st.binary(max_size=300) | st.text(alphabet='[]{}",:\\\\u0d8e1NaIn-.tf ').map(str.encode))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    with suppress(ValueError):
        json.dumps(parse_json(body), ensure_ascii=False, allow_nan=False).encode()


def test_ordinary_json_is_read() -> None:
    text = '{"a": [1, 2.5, null, true, "\\u00e9\\ud83d\\ude00"], "b": {}}'
    assert parse_json(text.encode()) == {"a": [1, 2.5, None, True, "é😀"], "b": {}}
    assert parse_json(b"[" + b"[]," * 100 + b"[]]") == [[]] * 101


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {"a": object()}, {"a": b""}])
def test_what_json_cannot_say_is_refused(payload: object) -> None:
    with pytest.raises(Refused, match="cannot be written as JSON"):
        Http().post_json("http://127.0.0.1:1/", payload)
