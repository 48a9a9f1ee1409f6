"""A provider reached over the seed's HTTP contract: another process, machine or language."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from marshmallow import ValidationError

from ..formats.strict_json import encode_json
from .base import (
    Accepted,
    Denied,
    Inbox,
    NotSent,
    OutboundEmail,
    OutboundSMS,
    OutcomeUnknown,
    Provider,
    ProviderError,
    Refused,
    Report,
)
from .contract import email as mail_contract
from .contract import manifest
from .contract import sms as contract
from .http import LONGEST_RETRY_AFTER, Http, Reply, classify, clean

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

# How long an answer about the manifest is believed, also the answer "I have none".
_MANIFEST_LASTS = 300.0
# How soon a provider that could not be asked is asked again.
_ASK_AGAIN = 5.0
_MANIFEST_DEADLINE = 5.0
# One that connects and so often fails to answer is taken for one without a manifest.
_SILENT = 3
_REPORTS_A_CALL = 500
# Three visits of 30 seconds, and what was read on its way home; within a mailbox's lease of 120.
_INBOX_DEADLINE = 110.0

_ENVELOPE = contract.Envelope()
_ACCEPTANCE = contract.Acceptance()
_BULK_RESULT = contract.BulkResult()
_REPORT = contract.ReportItem()


class RemoteProvider(Provider):
    """A provider that speaks the contract at ``url``.

    ``secret`` signs every body as a Standard Webhook (``whsec_`` and base64, or any string); a
    wrong one raises SettingError. ``transport`` replaces the network: a WSGI application, or a
    test. ``trailing_slash`` is False for a provider whose paths end without one. What the
    provider can do is read from its manifest when it is first needed, and again every few minutes
    beside the calls; no failure to read it is ever raised.
    """

    def __init__(
        self,
        name: str,
        url: str,
        secret: str | None = None,
        transport: httpx.BaseTransport | None = None,
        *,
        trailing_slash: bool = True,
    ) -> None:
        self.name = name
        self._root = url.rstrip("/") + "/"
        self._key = None if secret is None else contract.signature_key(secret)
        self._http = Http(transport=transport)
        # Mails are longer than answers, and take longer to fetch.
        self._mails = Http(
            _INBOX_DEADLINE, body_cap=mail_contract.LONGEST_INBOX, transport=transport
        )
        self._slash = trailing_slash
        self._lock = threading.Lock()
        self._known: manifest.Known | None = None
        self._believed_until = 0.0
        self._reached = False
        self._silences = 0

    def __repr__(self) -> str:
        return f"<RemoteProvider {self.name}>"

    # A class's constants become answers of the other side here, which mypy takes for a mistake.
    @property
    def is_known(self) -> bool:  # type: ignore[override]
        """Tell whether the provider has ever answered what it can do, or will not."""
        return self._reached

    def learn(self) -> None:
        """Read the manifest, unless that was done lately; never raises."""
        self._manifest()

    def check(self, config: Mapping[str, Any]) -> str:
        """Ask for the manifest now, and say what it tells; its calls are not tried."""
        reply = self._http.get_json(self._root, deadline=_MANIFEST_DEADLINE)
        return f"{self._root} can be reached; {manifest.examine(reply)}"

    @property
    def label(self) -> str:  # type: ignore[override]
        """Return the manifest's label, or the name."""
        return self._last().label or self.name

    @property
    def types(self) -> Sequence[str]:  # type: ignore[override]
        """Return the manifest's channels, or just ``sms``."""
        return self._last().types

    @property
    def features(self) -> frozenset[str]:  # type: ignore[override]
        """Return the manifest's features; without one there are none."""
        return self._last().features

    @property
    def config_schema(self) -> Mapping[str, Any] | None:  # type: ignore[override]
        """Return the manifest's JSON Schema of the configuration, if it has one."""
        return self._last().config_schema

    @property
    def idempotency_window(self) -> float:  # type: ignore[override]
        """Return for how many seconds the provider ignores a repeated Idempotency-Key."""
        return self._last().idempotency_window

    @property
    def report_after(self) -> float:  # type: ignore[override]
        """Return after how many seconds to ask for the first report."""
        return self._last().report_after

    @property
    def bulk_limit(self) -> int:  # type: ignore[override]
        """Return how many messages one bulk call may carry."""
        return self._last().bulk_limit

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Post the seed's body to ``sms/send/``."""
        body = contract.send_body(sms.msg, sms.destination, config)
        return _accepted(self._call(contract.SEND, body, sms.key, config)["data"])

    def retry_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Post the reference to ``sms/retry/``; it stays the message's, unless a new one comes."""
        if sms.provider_ref is None:
            return self.send_sms(sms, config)
        body = contract.retry_body(
            sms.provider_ref, sms.msg, sms.destination, config, stateless=self._stateless()
        )
        data = self._call(contract.RETRY, body, sms.key, config)["data"]
        try:
            return _accepted(data)
        except OutcomeUnknown:
            # The seed's answer to a retry has no data: success alone says it was taken.
            return Accepted(sms.provider_ref)

    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        """Post a batch to ``sms/send/bulk/``; one result each, in order."""
        messages = [
            {"msg": sms.msg, "destination": sms.destination, "idempotency_key": sms.key}
            for sms in batch
        ]
        body = {"messages": messages, "config": dict(config)}
        results = self._call(contract.BULK, body, uuid.uuid4().hex, config)["data"]
        if not isinstance(results, list) or len(results) != len(batch):
            raise _unclear(f"the answer must list {len(batch)} results")
        return [_bulk_result(one, config) for one in results]

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        """Post it to ``email/send/``, or to ``email/retry/`` what the provider knows already."""
        path = mail_contract.SEND if email.provider_ref is None else mail_contract.RETRY
        data = self._call(path, mail_contract.send_body(email, config), email.key, config)["data"]
        if data is None and email.provider_ref is not None:
            return Accepted(email.provider_ref)
        failed = data.get("failed") if isinstance(data, dict) else None
        return replace(_accepted(data), failed=_failed(failed, email.recipients, config))

    def email_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Post references to ``email/delivery_report/``; strangers' refs and words are left out."""
        return self._ask_reports(mail_contract.REPORT, refs, config)

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        """Post the cursor to ``email/inbox/``.

        An answer that is too long is asked for mail by mail.
        """
        try:
            data = self._inbox(cursor, limit, config)
        except OutcomeUnknown as failure:
            if failure.http_status != 200 or limit == 1:
                raise
            data = self._inbox(cursor, 1, config)
        given = data.get("cursor") if isinstance(data, dict) else None
        try:
            return mail_contract.inbox_of(data, len(encode_json(given)))
        except ValidationError:
            raise NotSent(
                "the provider's inbox is not in the form of the contract; nothing was read"
            ) from None

    def _inbox(self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]) -> Any:
        body = mail_contract.inbox_body(cursor, limit, config)
        return self._call(mail_contract.INBOX, body, uuid.uuid4().hex, config, self._mails)["data"]

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Post references to ``sms/delivery_report/``; strangers' refs and words are left out."""
        return self._ask_reports(contract.REPORT, refs, config)

    def _ask_reports(
        self, path: str, refs: Sequence[str], config: Mapping[str, Any]
    ) -> Sequence[Report]:
        reports: list[Report] = []
        for start in range(0, len(refs), _REPORTS_A_CALL):
            asked = refs[start : start + _REPORTS_A_CALL]
            body = contract.report_body(asked, config, stateless=self._stateless())
            data = self._call(path, body, uuid.uuid4().hex, config)["data"]
            if not isinstance(data, list):
                raise _unclear("the answer must carry a list of reports")
            reports += _reports(data, frozenset(asked), self.name)
        return reports

    def _call(
        self, path: str, payload: Any, key: str, config: Mapping[str, Any], http: Http | None = None
    ) -> dict[str, Any]:
        body = encode_json(payload)
        headers = {"Idempotency-Key": key}
        if self._key is not None:
            headers |= contract.signature_headers(self._key, key, body)
        url = self._root + (path if self._slash else path.rstrip("/"))
        reply = (http or self._http).post(url, body, "application/json", headers)
        self._freshen()
        return _envelope(classify(reply, config), config)

    def _freshen(self) -> None:
        if self._known is not None and time.monotonic() >= self._believed_until:
            # Not in this thread, which holds an answer that is not written down yet.
            asking = contextvars.copy_context()
            threading.Thread(target=asking.run, args=(self._manifest,), daemon=True).start()

    def _last(self) -> manifest.Known:
        """Return what was read last, however old; only the first time is there a wait."""
        return self._known or self._manifest()

    def _stateless(self) -> bool:
        known = self._manifest()
        if not self._reached:
            # Guessing "no" would call a stateless provider without its configuration.
            known = self._ask()
        return contract.STATELESS in known.features

    def _manifest(self) -> manifest.Known:
        known = self._known
        if known is not None and time.monotonic() < self._believed_until:
            return known
        # Whoever has something to go by does not wait for the one thread that asks.
        if not self._lock.acquire(blocking=known is None):
            return known or manifest.NONE
        try:
            if self._known is not None and time.monotonic() < self._believed_until:
                return self._known
            return self._ask()
        finally:
            self._lock.release()

    def _ask(self) -> manifest.Known:
        try:
            found = manifest.read(self._http.get_json(self._root, deadline=_MANIFEST_DEADLINE))
            self._reached = True
        except ProviderError as exc:
            log.info("no manifest from provider %s: %s", self.name, exc.reason)
            self._silences += not isinstance(exc, NotSent)
            self._reached = self._reached or self._silences >= _SILENT
            found = None
        lasts = _ASK_AGAIN if found is None else _MANIFEST_LASTS
        self._known = found or self._known or manifest.NONE
        self._believed_until = time.monotonic() + lasts
        return self._known


def _unclear(what: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the provider answered 2xx, but {what}; look the message up there before sending it again"
    )


def _envelope(reply: Reply, config: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(reply.json, dict) and reply.json.get("success") is True:
        # All that matters of a success; to load the schema would take a tenth of the call.
        return {"data": reply.json.get("data")}
    try:
        envelope: dict[str, Any] = _ENVELOPE.load(reply.json)
    except ValidationError:
        raise _unclear("not in the form of the contract") from None
    if not envelope["success"]:
        raise _failure(envelope, config)
    return envelope


def _failure(failed: Mapping[str, Any], config: Mapping[str, Any]) -> ProviderError:
    said = clean(failed["msg"], config) if isinstance(failed["msg"], str) else ""
    reason = f"the provider said: {said or 'no, without a reason'}"
    code, alone = _word(failed["code"]), failed["only_this"] is True
    if failed["outcome"] == "not_sent":
        wait = _seconds(failed["retry_after"])
        return NotSent(reason, code=code, retry_after=wait, only_this=alone)
    if failed["outcome"] == "unknown":
        return OutcomeUnknown(reason, code=code, only_this=alone)
    kind = Denied if failed["outcome"] == "denied" else Refused
    return kind(reason, code=code, only_this=alone, opted_out=failed["opted_out"] is True)


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return min(float(value), LONGEST_RETRY_AFTER)


def _word(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return clean(str(value)) or None


def _accepted(data: Any) -> Accepted:
    try:
        given = _ACCEPTANCE.load(data)
    except ValidationError:
        raise _unclear("without a usable msg_uuid") from None
    extra = given["extra_data"]
    return Accepted(given["msg_uuid"], extra if isinstance(extra, dict) else {})


def _failed(
    given: Any, recipients: Sequence[str], config: Mapping[str, Any]
) -> Mapping[str, ProviderError]:
    """Read what became of single recipients.

    What is unclear may have arrived, strangers are left out.
    """
    if not isinstance(given, dict):
        return {}
    results = {one: _bulk_result(given[one], config) for one in recipients if one in given}
    return {
        one: result
        if isinstance(result, ProviderError)
        else _unclear("says nothing clear of a recipient")
        for one, result in results.items()
    }


def _bulk_result(given: Any, config: Mapping[str, Any]) -> Accepted | ProviderError:
    try:
        result = _BULK_RESULT.load(given)
        if result["success"]:
            return _accepted({name: result[name] for name in ("msg_uuid", "extra_data")})
        return _failure(result, config)
    except ValidationError:
        return _unclear("this result is not in the form of the contract")
    except OutcomeUnknown as exc:
        return exc


def _reports(data: list[Any], asked: frozenset[str], name: str) -> Iterator[Report]:
    for one in data:
        try:
            given = _REPORT.load(one)
        except ValidationError:
            log.warning("provider %s sent a report in another form than the contract's", name)
            continue
        status = contract.status_of(given["status"])
        if given["msg_uuid"] not in asked:
            log.warning("provider %s reported a message it was not asked about", name)
        elif status is None:
            word = clean(given["status"])
            log.warning("provider %s reported %r, a word nobody knows", name, word)
        else:
            yield _report(given, status)


def _report(given: Mapping[str, Any], status: str) -> Report:
    return Report(
        ref=given["msg_uuid"],
        status=status,
        detail=_word(given["detail"]),
        code=_word(given["code"]),
        recipient=_word(given["recipient"]),
        event_id=_word(given["event_id"]),
        occurred_at=mail_contract.moment(given["occurred_at"]),
        opted_out=given["opted_out"] is True,
    )
