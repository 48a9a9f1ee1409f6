"""The client of the HTTP contract: a provider in another process, machine or language."""

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
from ..formats.text import mask
from .base import (
    Accepted,
    Capabilities,
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
    ReportStatus,
)
from .contract import email as mail_contract
from .contract import envelope, manifest, signatures
from .contract import sms as contract
from .http import LONGEST_RETRY_AFTER, Http, Reply, classify

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

# Seconds until the manifest is read again, also where there is none ...
_MANIFEST_LASTS = 300.0
# ... and where the provider did not answer.
_ASK_AGAIN = 5.0
_MANIFEST_DEADLINE = 5.0
# A provider that so often connects and does not answer counts as one without a manifest.
_SILENT = 3
_REPORTS_A_REQUEST = 500
# Three visits of 30 seconds and the transfer, within the mailbox's lease of 120 seconds.
_INBOX_DEADLINE = 110.0

_ENVELOPE = envelope.Envelope()
_ACCEPTANCE = envelope.Acceptance()
_BULK_RESULT = envelope.BulkResult()
_REPORT = envelope.ReportItem()


class RemoteProvider(Provider):
    """A provider that speaks the contract at ``url``.

    ``secret`` signs every body as a Standard Webhook (``whsec_`` and base64, or any string); a
    wrong one raises SettingError. ``transport`` replaces the network: a WSGI application, or a
    test. ``trailing_slash`` is False for a provider whose paths end without one. :meth:`learn`
    reads the manifest, and so does every few minutes a thread beside the requests; a failure to
    read it is never raised.
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
        self._key = None if secret is None else signatures.signature_key(secret)
        self._http = Http(transport=transport)
        # Mails are longer than other answers, and take longer to fetch.
        self._mails = Http(
            _INBOX_DEADLINE, body_cap=mail_contract.LONGEST_INBOX, transport=transport
        )
        self._slash = trailing_slash
        self._lock = threading.Lock()
        self._learnt = Capabilities(label=name, known=False)
        self._recent_until: float | None = None
        self._silences = 0

    def __repr__(self) -> str:
        return f"<RemoteProvider {self.name}>"

    @property
    def capabilities(self) -> Capabilities:
        """Return what the manifest said when it was last read; before that, the defaults."""
        return self._learnt

    def learn(self) -> Capabilities:
        """Read the manifest, unless that was done lately, and return what it says; never raises."""
        if self._is_recent():
            return self._learnt
        # Only the first time does a thread wait for the one that asks.
        if not self._lock.acquire(blocking=self._recent_until is None):
            return self._learnt
        try:
            return self._learnt if self._is_recent() else self._ask()
        finally:
            self._lock.release()

    def check(self, config: Mapping[str, Any]) -> str:
        """Read the manifest now and describe it; no other request is tried."""
        reply = self._http.get_json(self._root, deadline=_MANIFEST_DEADLINE)
        return f"{self._root} can be reached; {manifest.describe(reply.status, reply.json)}"

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Post the seed's body to ``sms/send/``."""
        body = contract.send_body(sms.msg, sms.destination, config)
        return _accepted(self._post(contract.SEND, body, sms.key, config)["data"])

    def retry_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Post the reference to ``sms/retry/``; the message keeps it, unless a new one comes."""
        if sms.provider_ref is None:
            return self.send_sms(sms, config)
        body = contract.retry_body(
            sms.provider_ref, sms.msg, sms.destination, config, stateless=self._is_stateless()
        )
        data = self._post(contract.RETRY, body, sms.key, config)["data"]
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
        results = self._post(contract.BULK, body, uuid.uuid4().hex, config)["data"]
        if not isinstance(results, list) or len(results) != len(batch):
            raise _unclear(f"the answer must list {len(batch)} results")
        return [_bulk_result(one, config) for one in results]

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        """Post an email to ``email/send/``, or with a reference to ``email/retry/``."""
        path = mail_contract.SEND if email.provider_ref is None else mail_contract.RETRY
        data = self._post(path, mail_contract.send_body(email, config), email.key, config)["data"]
        if data is None and email.provider_ref is not None:
            return Accepted(email.provider_ref)
        failed = data.get("failed") if isinstance(data, dict) else None
        return replace(_accepted(data), failed=_failed(failed, email.recipients, config))

    def email_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Post references to ``email/delivery_report/``; ignore other references and words."""
        return self._ask_reports(mail_contract.REPORT, refs, config)

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        """Post the cursor to ``email/inbox/``; if the answer is too long, ask mail by mail."""
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
        return self._post(mail_contract.INBOX, body, uuid.uuid4().hex, config, self._mails)["data"]

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Post references to ``sms/delivery_report/``; ignore other references and words."""
        return self._ask_reports(contract.REPORT, refs, config)

    def _ask_reports(
        self, path: str, refs: Sequence[str], config: Mapping[str, Any]
    ) -> Sequence[Report]:
        reports: list[Report] = []
        for start in range(0, len(refs), _REPORTS_A_REQUEST):
            asked = refs[start : start + _REPORTS_A_REQUEST]
            body = contract.report_body(asked, config, stateless=self._is_stateless())
            data = self._post(path, body, uuid.uuid4().hex, config)["data"]
            if not isinstance(data, list):
                raise _unclear("the answer must carry a list of reports")
            reports += _reports(data, frozenset(asked), self.name)
        return reports

    def _post(
        self, path: str, payload: Any, key: str, config: Mapping[str, Any], http: Http | None = None
    ) -> dict[str, Any]:
        body = encode_json(payload)
        headers = {"Idempotency-Key": key}
        if self._key is not None:
            headers |= signatures.signature_headers(self._key, key, body)
        url = self._root + (path if self._slash else path.rstrip("/"))
        reply = (http or self._http).post(url, body, "application/json", headers)
        self._refresh()
        return _envelope(classify(reply, config), config)

    def _refresh(self) -> None:
        if self._recent_until is not None and not self._is_recent():
            # Not in this thread, which holds an answer that is not written down yet.
            asking = contextvars.copy_context()
            threading.Thread(target=asking.run, args=(self.learn,), daemon=True).start()

    def _is_recent(self) -> bool:
        return self._recent_until is not None and time.monotonic() < self._recent_until

    def _is_stateless(self) -> bool:
        can = self.learn()
        if not can.known:
            # Guessing "no" would ask a stateless provider without its configuration.
            can = self._ask()
        return manifest.STATELESS in can.features

    def _ask(self) -> Capabilities:
        lasts = _ASK_AGAIN
        try:
            reply = self._http.get_json(self._root, deadline=_MANIFEST_DEADLINE)
            found = manifest.read(reply.status, reply.json)
            self._learnt = replace(found, label=found.label or self.name)
            lasts = _MANIFEST_LASTS
        except ProviderError as exc:
            log.info("no manifest from provider %s: %s", self.name, exc.reason)
            self._silences += not isinstance(exc, NotSent)
            if self._silences >= _SILENT:
                self._learnt = replace(self._learnt, known=True)
        self._recent_until = time.monotonic() + lasts
        return self._learnt


def _unclear(what: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the provider answered 2xx, but {what}; look the message up there before sending it again"
    )


def _envelope(reply: Reply, config: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(reply.json, dict) and reply.json.get("success") is True:
        # Only this matters of a success; loading the schema would take a tenth of the request.
        return {"data": reply.json.get("data")}
    try:
        answer: dict[str, Any] = _ENVELOPE.load(reply.json)
    except ValidationError:
        raise _unclear("not in the form of the contract") from None
    if not answer["success"]:
        raise _failure(answer, config)
    return answer


def _failure(failed: Mapping[str, Any], config: Mapping[str, Any]) -> ProviderError:
    said = mask(failed["msg"], config) if isinstance(failed["msg"], str) else ""
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
    return mask(str(value)) or None


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
    """Read the failures of single recipients; ignore other addresses.

    A recipient with an unclear answer may have been reached.
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
            log.warning("provider %s sent a report that is not in the form of the contract", name)
            continue
        status = envelope.status_of(given["status"])
        if given["msg_uuid"] not in asked:
            log.warning("provider %s reported a message it was not asked about", name)
        elif status is None:
            word = mask(given["status"])
            log.warning("provider %s reported %r, an unknown word", name, word)
        else:
            yield _report(given, status)


def _report(given: Mapping[str, Any], status: ReportStatus) -> Report:
    return Report(
        ref=given["msg_uuid"],
        status=status,
        detail=_word(given["detail"]),
        code=_word(given["code"]),
        recipient=_word(given["recipient"]),
        event_id=_word(given["event_id"]),
        occurred_at=envelope.moment(given["occurred_at"]),
        opted_out=given["opted_out"] is True,
    )
