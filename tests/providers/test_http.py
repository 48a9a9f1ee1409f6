"""The HTTP client turns a reply into an outcome, and into words that may be logged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from flask_communication.errors import NotSent, OutcomeUnknown, Refused
from flask_communication.providers.http import Http, Reply, basic_auth, classify, retry_after


def reply(status: int, *, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, httpx.Headers(headers or {}), {"msg": "so it is"})


def test_a_form_repeats_the_field_of_a_list() -> None:
    seen: list[httpx.Request] = []

    def behave(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    http = Http(transport=httpx.MockTransport(behave))
    http.post_form("http://x/", {"a": ["1", "2"], "b": "&"}, basic_auth("u", "p"))
    assert seen[0].content == b"a=1&a=2&b=%26"
    assert seen[0].headers["authorization"] == "Basic dTpw"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *[(code, Refused) for code in (400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 451)],
        *[(code, NotSent) for code in (425, 429)],
        *[(code, OutcomeUnknown) for code in (100, 302, 408, 500, 501, 502, 503, 504, 599, 600)],
    ],
)
def test_each_status_means_one_outcome(status: int, outcome: type[Exception]) -> None:
    with pytest.raises(outcome, match=str(status)) as caught:
        classify(reply(status))
    assert type(caught.value) is outcome
    assert caught.value.http_status == status  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_success_is_passed_on(status: int) -> None:
    assert classify(reply(status)).status == status


def test_503_with_retry_after_is_not_sent() -> None:
    with pytest.raises(NotSent) as caught:
        classify(reply(503, headers={"Retry-After": "7"}))
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("1", 1),
        ("0", 0),
        ("1000000000", 3600),
        ("-1", None),
        ("abc", None),
        ("", None),
        ("1.5", None),
        ("9" * 400, None),
        ("٣", None),
        ("nan", None),
        ("Wed, 99 Foo 2020", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 3600),
    ],
)
def test_retry_after_is_seconds_or_nothing(raw: str, seconds: float | None) -> None:
    assert retry_after(httpx.Headers([(b"retry-after", raw.encode())])) == seconds


def test_retry_after_may_be_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    seconds = retry_after({"retry-after": soon})
    assert seconds is not None
    assert 80 < seconds <= 90
