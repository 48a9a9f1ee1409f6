"""Tests of messages that the vendor accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from flask.testing import FlaskClient

from ...errors import ProviderError
from ...formats.strict_json import encode_json
from ...providers.base import REPORT_STATUSES, Accepted, Inbox, Provider, Report
from ...providers.contract import email as mail_contract
from ...providers.contract import envelope, manifest, sms
from .fixtures import (
    Fixtures,
    channel_of,
    check,
    check_no_secret,
    email_to,
    outcome,
    post,
    send,
    send_body,
    sms_to,
    words_of,
)

_RETRY = {"sms": sms.RETRY, "email": mail_contract.RETRY}
_REPORT = {"sms": sms.REPORT, "email": mail_contract.REPORT}


class Sending(Fixtures):
    """Acceptances, retries, batches, repeated keys, reports and inboxes."""

    def test_an_accepted_message_has_a_reference(
        self, reached: Provider, provider: Provider, config: Mapping[str, Any], channel: str
    ) -> None:
        taken = _taken(send(reached, self.destinations[channel], config))
        envelope.Acceptance().load({"msg_uuid": taken.ref})
        encode_json(dict(taken.extra))
        assert set(taken.failed) <= {self.destinations[channel]}
        check_no_secret(repr(taken), "what it returns", provider, config)

    def test_an_acceptance_is_answered_as_the_contract_says(
        self, client: FlaskClient, provider: Provider, config: Mapping[str, Any], channel: str
    ) -> None:
        answer = post(client, *send_body(self.destinations[channel], config))
        assert answer.status_code == 200, answer.text
        body = answer.get_json()
        assert body["success"] is True
        envelope.Acceptance().load(body["data"])
        check_no_secret(answer.text, "the answer", provider, config)

    def test_a_retry_is_taken_too(
        self, reached: Provider, config: Mapping[str, Any], channel: str
    ) -> None:
        to = self.destinations[channel]
        first = _taken(send(reached, to, config))
        if channel == "email":
            _taken(
                outcome(
                    reached.send_email, email_to(to, key="conformance-2", ref=first.ref), config
                )
            )
        else:
            _taken(outcome(reached.retry_sms, sms_to(to, "conformance-2", first.ref), config))

    def test_a_retry_that_names_only_its_reference_breaks_nothing(
        self, client: FlaskClient, channel: str
    ) -> None:
        answer = post(client, _RETRY[channel], {"msg_uuid": "conformance-1"})
        assert answer.status_code < 500, "refuse what cannot be found: raise Refused"
        assert isinstance(answer.get_json()["success"], bool)

    def test_many_threads_may_send_at_once(
        self, provider: Provider, config: Mapping[str, Any], channel: str
    ) -> None:
        def one(number: int) -> Accepted | ProviderError:
            return send(provider, self.destinations[channel], config, f"conformance-{number}")

        with ThreadPoolExecutor(8) as pool:
            for sending in [pool.submit(copy_context().run, one, number) for number in range(8)]:
                _taken(sending.result())

    def test_a_repeated_key_sends_once(
        self, provider: Provider, config: Mapping[str, Any], vendor: Any, channel: str
    ) -> None:
        if not provider.learn().idempotency_window:
            pytest.skip("it does not promise to ignore repeats")
        refs, requests = [], []
        for _ in range(2):
            before = len(vendor.heard)
            refs.append(
                _taken(send(provider, self.destinations[channel], config, "repeated-17")).ref
            )
            requests.append(vendor.heard[before:])
        assert refs[0] == refs[1], (
            "idempotency_window is promised, and a repeated key was a new message"
        )
        for heard in requests:
            assert not heard or any(self.carries(one, "repeated-17") for one in heard), (
                "idempotency_window is promised, and the vendor does not get the key: pass it on"
            )

    def carries(self, request: Any, key: str) -> bool:
        """Tell whether a request to the vendor has our key; override it if it is not as it is."""
        said = f"{request.url} {request.headers} {request.content.decode('utf-8', 'replace')}"
        return key in said

    def test_a_recipient_has_its_outcome(
        self, reached: Provider, config: Mapping[str, Any], recipient_case: tuple[str, Any]
    ) -> None:
        recipient, expected = recipient_case
        check(send(reached, recipient, config), expected)

    def test_a_recipient_fails_alone(
        self, reached: Provider, config: Mapping[str, Any], recipient_case: tuple[str, Any]
    ) -> None:
        recipient, expected = recipient_case
        if channel_of(recipient) != "email" or not issubclass(expected, ProviderError):
            pytest.skip("this is about emails to several, of whom one is not taken")
        email = email_to(self.destinations["email"], recipient)
        taken = _taken(outcome(reached.send_email, email, config))
        assert list(taken.failed) == [recipient]
        check(taken.failed[recipient], expected)

    def test_a_batch_has_one_result_each(
        self, reached: Provider, config: Mapping[str, Any]
    ) -> None:
        ended = self._batch(
            reached, config, [self.destinations["sms"]] * min(3, reached.learn().bulk_limit)
        )
        refs = [_taken(one).ref for one in ended]
        # A played vendor says the same of all.
        assert self.accepts is not None or len(set(refs)) == len(refs), (
            "two messages have one reference"
        )

    def test_a_batch_keeps_its_order(self, reached: Provider, config: Mapping[str, Any]) -> None:
        people = [one for one in self.recipients if channel_of(one) == "sms"][
            : reached.learn().bulk_limit
        ]
        for person, ended in zip(people, self._batch(reached, config, people), strict=True):
            check(ended, self.recipients[person])

    def _batch(
        self, reached: Provider, config: Mapping[str, Any], people: Sequence[str]
    ) -> Sequence[Any]:
        if manifest.BULK not in reached.learn().features or not people:
            pytest.skip("it takes one message a request, or there is no table of recipients")
        batch = [sms_to(to, f"conformance-{place}") for place, to in enumerate(people)]
        results: Sequence[Any] = outcome(reached.send_sms_bulk, batch, config)
        assert not isinstance(results, ProviderError), results
        assert len(results) == len(batch), (
            f"{len(results)} results came back for {len(batch)} messages"
        )
        return results

    def test_a_batch_over_the_limit_is_refused(
        self, client: FlaskClient, provider: Provider, config: Mapping[str, Any]
    ) -> None:
        if manifest.BULK not in provider.learn().features:
            pytest.skip("it takes one message a request")
        one = {
            "msg": "Hello",
            "destination": self.destinations["sms"],
            "idempotency_key": "conformance-1",
        }
        body = {"messages": [one] * (provider.learn().bulk_limit + 1), "config": dict(config)}
        assert post(client, sms.BULK, body).status_code == 422

    def test_reports_are_about_what_was_asked(
        self, reached: Provider, config: Mapping[str, Any], channel: str
    ) -> None:
        taken = _taken(send(reached, self.destinations[channel], config))
        for refs in ([], [taken.ref, "conformance-of-nobody"]):
            found = _reports(reached, channel, refs, config)
            if not isinstance(found, ProviderError):
                assert all(isinstance(one, Report) for one in found)
                assert {one.ref for one in found} <= {taken.ref}, (
                    "it reports what it was not asked about"
                )
                assert {one.status for one in found} <= REPORT_STATUSES, (
                    f"use our words: {sorted(REPORT_STATUSES)}"
                )

    def test_reports_are_answered_as_the_contract_says(
        self, client: FlaskClient, provider: Provider, config: Mapping[str, Any], channel: str
    ) -> None:
        answer = post(
            client, _REPORT[channel], {"msg_uuids": ["conformance-1"], "config": dict(config)}
        )
        body = answer.get_json()
        assert isinstance(body["success"], bool)
        for one in body["data"] if body["success"] else ():
            assert envelope.status_of(envelope.ReportItem().load(one)["status"])
        check_no_secret(answer.text, "the answer", provider, config)

    def test_the_vendors_words_are_ours(
        self,
        reached: Provider,
        config: Mapping[str, Any],
        vendor: Any,
        channel: str,
        report_case: Any,
    ) -> None:
        answer, expected = report_case
        vendor.plays(answer)
        refs = sorted({"1", "2", "3", *(ref for ref, _ in expected)})
        found = _reports(reached, channel, refs, config)
        assert not isinstance(found, ProviderError), found
        assert [(one.ref, one.status) for one in found] == list(expected)

    def test_an_inbox_is_read_on_from_its_cursor(
        self, reached: Provider, provider: Provider, config: Mapping[str, Any]
    ) -> None:
        if manifest.INBOX not in provider.learn().features:
            pytest.skip("it has no inbox")
        found = _inbox(reached, {}, config)
        if not provider.has_inbox(config):
            assert isinstance(found, ProviderError), "without a mailbox, raise Refused"
            return
        assert isinstance(found, Inbox), found
        mail_contract.inbox_of(
            mail_contract.inbox_data(found), len(encode_json(dict(found.cursor)))
        )
        rest = _inbox(reached, found.cursor, config)
        assert isinstance(rest, Inbox), rest
        places = [{(one.folder, one.uid) for one in part.mails} for part in (found, rest)]
        assert not places[0] & places[1], "what was read came again"


def _taken(ended: Any) -> Accepted:
    assert isinstance(ended, Accepted), f"it should have been accepted: {words_of(ended)}"
    return ended


def _reports(
    reached: Provider, channel: str, refs: Sequence[str], config: Mapping[str, Any]
) -> Any:
    return outcome(
        reached.email_reports if channel == "email" else reached.sms_reports, refs, config
    )


def _inbox(reached: Provider, cursor: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    def fetch_inbox(cursor: Mapping[str, Any], config: Mapping[str, Any]) -> Inbox:
        return reached.fetch_inbox(cursor, 10, config)

    return outcome(fetch_inbox, cursor, config)
