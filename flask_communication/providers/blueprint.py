"""The server of the HTTP contract: a blueprint for any provider; its client is :mod:`.remote`."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from traceback import extract_tb
from typing import Any

from flask import Blueprint, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import HTTPException

from ..formats.strict_json import encode_json, parse_json
from ..formats.text import mask
from .base import (
    Accepted,
    Capabilities,
    Inbox,
    NotSent,
    OutboundSMS,
    OutcomeUnknown,
    Provider,
    ProviderError,
    Refused,
)
from .contract import email as mail_contract
from .contract import manifest, signatures
from .contract import sms as contract
from .contract.envelope import LONGEST_REF
from .net import hosts
from .net.in_process import INTERNAL

log = logging.getLogger(__name__)

_LONGEST_BODY = 256 * 1024
_LONGEST_BULK = 8 * 1024 * 1024
# Sent with 503 for a provider that names no time: only this header says that nothing was sent.
_RETRY_AFTER = 5

_View = Callable[[], ResponseReturnValue]


class _ErrorReply(Exception):
    def __init__(
        self,
        status: int,
        msg: str,
        errors: Any = None,
        retry_after: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(msg)
        self.status = status
        self.body: dict[str, Any] = {"success": False, "msg": msg, **(more or {})}
        if errors is not None:
            self.body["errors"] = errors
        self.retry_after = retry_after


def provider_blueprint(
    provider: Provider,
    *,
    name: str | None = None,
    secret: str | Sequence[str] | None = None,
    unsigned: bool = False,
) -> Blueprint:
    """Return a blueprint that serves ``provider`` at ``/<name>``, or any ``url_prefix``.

    With ``secret`` (or several, while one is replaced) every request but that for the manifest must
    carry a Standard Webhooks signature not older than five minutes. ``unsigned=True`` accepts
    requests from anyone who reaches the URL. With neither, only requests from inside this
    application are accepted.
    The provider reaches public addresses only, and those that the application's setting
    COMMUNICATION_ALLOW_PRIVATE_HOSTS lists.

    The manifest promises ``stateless``: ``config`` comes with every request, and nothing is stored.
    A client that knows only the seed's contract sends none with a retry or report; the provider
    then gets an empty one. A retry that would need the text of the message, and has none, is
    answered with 422. Raises SettingError for an unusable secret.
    """
    name = name or provider.name
    secrets = (secret,) if isinstance(secret, str) else tuple(secret or ())
    views = _Views(provider, [signatures.signature_key(one) for one in secrets], unsigned)
    blueprint = Blueprint(name, type(provider).__module__, url_prefix=f"/{name}")

    def serve(path: str, endpoint: str, view: _View, method: str) -> None:
        # Both spellings of a path are served; a redirect would lose the body of a post.
        blueprint.add_url_rule(
            path, endpoint, _answering(view), methods=[method], strict_slashes=False
        )

    serve("/", "manifest", views.manifest, "GET")
    serve(f"/{contract.SEND}", "send", views.send, "POST")
    serve(f"/{contract.RETRY}", "retry", views.retry, "POST")
    serve(f"/{contract.REPORT}", "delivery_report", views.report, "POST")
    serve(f"/{contract.BULK}", "send_bulk", views.bulk, "POST")
    serve(f"/{mail_contract.SEND}", "send_email", views.send_email, "POST")
    serve(f"/{mail_contract.RETRY}", "retry_email", views.retry_email, "POST")
    serve(f"/{mail_contract.REPORT}", "email_report", views.email_report, "POST")
    serve(f"/{mail_contract.INBOX}", "inbox", views.inbox, "POST")
    return blueprint


class _Views:
    def __init__(self, provider: Provider, keys: Sequence[bytes], unsigned: bool) -> None:
        self._provider = provider
        self._keys = keys
        self._unsigned = unsigned

    def manifest(self) -> ResponseReturnValue:
        return jsonify(manifest.write(self._provider.name, self._provider.learn()))

    def send(self) -> ResponseReturnValue:
        given = self._read(_SEND)
        sms = OutboundSMS(_key(), given["destination"], given["msg"])
        return _queued(_ask(self._provider.send_sms, sms, given["config"]))

    def retry(self) -> ResponseReturnValue:
        given = self._read(_RETRY)
        alone = given["destination"] is None or given["msg"] is None
        if alone and type(self._provider).retry_sms is Provider.retry_sms:
            raise _ErrorReply(
                422, "this provider is stateless: send msg, destination and config with a retry"
            )
        sms = OutboundSMS(
            _key(), given["destination"] or "", given["msg"] or "", provider_ref=given["msg_uuid"]
        )
        return _queued(_ask(self._provider.retry_sms, sms, given["config"]), sms.provider_ref)

    def report(self) -> ResponseReturnValue:
        return self._reported(self._provider.sms_reports)

    def email_report(self) -> ResponseReturnValue:
        self._check_type("email")
        return self._reported(self._provider.email_reports)

    def _reported(self, ask: Callable[..., Any]) -> ResponseReturnValue:
        given = self._read(_REPORT)
        reports = _ask(ask, given["msg_uuids"], given["config"])
        return jsonify(success=True, data=[_written(report) for report in reports])

    def send_email(self) -> ResponseReturnValue:
        self._check_type("email")
        given = self._read(_SEND_EMAIL, mail_contract.LONGEST_BODY)
        return self._emailed({**given, "msg_uuid": None})

    def retry_email(self) -> ResponseReturnValue:
        self._check_type("email")
        given = self._read(_SEND_EMAIL, mail_contract.LONGEST_BODY)
        if given["msg_uuid"] is None:
            raise _ErrorReply(422, "say which email: msg_uuid", {"msg_uuid": ["Missing."]})
        return self._emailed(given)

    def _emailed(self, given: Mapping[str, Any]) -> ResponseReturnValue:
        email, config = mail_contract.email_of(given, _key()), given["config"]
        accepted = _ask(self._provider.send_email, email, config)
        failed = {one: _result(why, config) for one, why in getattr(accepted, "failed", {}).items()}
        return _queued(
            accepted, None if failed else email.provider_ref, {"failed": failed} if failed else {}
        )

    def inbox(self) -> ResponseReturnValue:
        if manifest.INBOX not in self._can().features:
            raise _ErrorReply(404, "this provider has no inbox")
        given = self._read(_INBOX)

        def fetch(cursor: Mapping[str, Any], config: Mapping[str, Any]) -> Inbox:
            return self._provider.fetch_inbox(cursor, given["limit"], config)

        return jsonify(
            success=True,
            data=mail_contract.inbox_data(_ask(fetch, given["cursor"], given["config"])),
        )

    def _can(self) -> Capabilities:
        can = self._provider.capabilities
        return can if can.known else self._provider.learn()

    def _check_type(self, wanted: str) -> None:
        if wanted not in self._can().types:
            raise _ErrorReply(404, f"this provider does not send {wanted}")

    def bulk(self) -> ResponseReturnValue:
        if manifest.BULK not in self._can().features:
            raise _ErrorReply(
                404, "this provider takes one message a request: post it to sms/send/"
            )
        given = self._read(_BULK, _LONGEST_BULK)
        limit = self._can().bulk_limit
        if len(given["messages"]) > limit:
            raise _ErrorReply(
                422, f"at most {limit} messages a request", {"messages": ["Too many."]}
            )
        batch = [
            OutboundSMS(one["idempotency_key"], one["destination"], one["msg"])
            for one in given["messages"]
        ]
        results = _ask(self._provider.send_sms_bulk, batch, given["config"])
        if len(results) != len(batch):
            raise _ErrorReply(
                502, "the provider did not answer for every message; look them up there"
            )
        return jsonify(success=True, data=[_result(one, given["config"]) for one in results])

    def _read(self, schema: Schema, longest: int = _LONGEST_BODY) -> dict[str, Any]:
        raw = _body(longest)
        self._check_caller(raw)
        if not request.is_json:
            raise _ErrorReply(415, "send JSON, with Content-Type: application/json")
        try:
            loaded: dict[str, Any] = schema.load(parse_json(raw))
        except ValidationError as exc:
            wrong = "the body is not in the form of the contract"
            raise _ErrorReply(422, wrong, exc.messages) from None
        except ValueError as exc:
            raise _ErrorReply(400, f"the body is not usable JSON ({mask(str(exc))})") from None
        return loaded

    def _check_caller(self, raw: bytes) -> None:
        if request.environ.get(INTERNAL) is True:
            return
        if self._keys:
            if not _signed(self._keys, raw):
                raise _ErrorReply(401, "sign the body with the shared secret (Standard Webhooks)")
        elif not self._unsigned:
            raise _ErrorReply(
                401, "closed: give provider_blueprint a secret, or unsigned=True to let anyone in"
            )


_SEND = contract.SendBody()
_RETRY = contract.RetryBody()
_REPORT = contract.ReportBody()
_BULK = contract.BulkBody()
_SEND_EMAIL = mail_contract.SendBody()
_INBOX = mail_contract.InboxBody()


def _answering(view: _View) -> _View:
    @wraps(view)
    def answered() -> ResponseReturnValue:
        try:
            return view()
        except _ErrorReply as answer:
            headers = {}
            if answer.retry_after is not None:
                headers["Retry-After"] = str(math.ceil(answer.retry_after))
            return jsonify(answer.body), answer.status, headers

    return answered


def _body(longest: int) -> bytes:
    if "Transfer-Encoding" in request.headers:
        raise _ErrorReply(411, "send the Content-Length of the body, and not in chunks")
    if (request.content_length or 0) > longest:
        raise _ErrorReply(413, f"send at most {longest} bytes")
    try:
        return request.get_data()
    except HTTPException as exc:
        # The host's own limits, such as MAX_CONTENT_LENGTH, or a client that left.
        raise _ErrorReply(
            exc.code or 400, exc.description or "the body could not be read"
        ) from None


def _signed(keys: Sequence[bytes], raw: bytes) -> bool:
    headers = request.headers
    return signatures.is_signed(
        keys,
        raw,
        message_id=headers.get("webhook-id", ""),
        timestamp=headers.get("webhook-timestamp", ""),
        signatures=headers.get("webhook-signature", ""),
    )


def _key() -> str:
    key = request.headers.get("Idempotency-Key") or request.headers.get("webhook-id", "")
    return key if 1 <= len(key) <= LONGEST_REF and key.isprintable() else uuid.uuid4().hex


def _ask(method: Callable[..., Any], subject: Any, config: Mapping[str, Any]) -> Any:
    try:
        with _guard():
            return method(subject, config)
    except ProviderError as exc:
        raise _failed(exc, config) from None
    except Exception as exc:
        # Neither the message nor the frames' values: a secret could be in them.
        place = extract_tb(exc.__traceback__)[-1]
        log.error("a provider raised %s at %s:%s", type(exc).__name__, place.filename, place.lineno)
        raise _failed(OutcomeUnknown("the provider broke; its log says where"), config) from None


def _guard() -> AbstractContextManager[None]:
    """Return the guard against private addresses: the caller's own within this application."""
    if request.environ.get(INTERNAL) is True:
        return nullcontext()
    given = current_app.config.get(hosts.SETTING) or ()
    return hosts.guarded([given] if isinstance(given, str) else given)


def _failed(exc: ProviderError, config: Mapping[str, Any]) -> _ErrorReply:
    status = (
        403
        if _denies(exc)
        else next(_STATUSES[kind] for kind in _STATUSES if isinstance(exc, kind))
    )
    answer = _ErrorReply(status, mask(exc.reason, config))
    if isinstance(exc, NotSent):
        answer.retry_after = _RETRY_AFTER if exc.retry_after is None else max(exc.retry_after, 0)
    if exc.only_this:
        answer.body["only_this"] = True
    answer.body |= _opted_out(exc)
    return answer


def _opted_out(said: object) -> dict[str, Any]:
    return {"opted_out": True} if getattr(said, "opted_out", False) else {}


def _denies(said: object) -> bool:
    return isinstance(said, Refused) and said.denies_us


# The first that fits.
_STATUSES: dict[type[ProviderError], int] = {NotSent: 503, Refused: 422, ProviderError: 502}


def _queued(
    accepted: object, known_as: str | None = None, more: Mapping[str, Any] = {}
) -> ResponseReturnValue:
    if not isinstance(accepted, Accepted):
        raise _ErrorReply(502, "the provider did not say whether it took the message")
    answer: dict[str, Any] = {"success": True, "msg": "Successfully queued"}
    # The seed's answer to a retry has no data; only a new reference is worth more than that.
    if accepted.ref != known_as:
        answer["data"] = {"msg_uuid": accepted.ref, "extra_data": _extra(accepted), **more}
    return jsonify(answer)


def _extra(accepted: Accepted) -> dict[str, Any]:
    extra = dict(accepted.extra)
    try:
        encode_json(extra)
    except Refused:
        # The message is on its way: an answer without this is better than none.
        log.warning("the extra of an accepted message is not JSON and is left out")
        return {}
    return extra


def _result(result: object, config: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(result, Accepted):
        return {"success": True, "msg_uuid": result.ref, "extra_data": _extra(result)}
    if not isinstance(result, ProviderError):
        result = OutcomeUnknown("the provider did not say whether it took the message")
    said: dict[str, Any] = {"success": False, "msg": mask(result.reason, config)}
    if result.code:
        said["code"] = result.code
    if result.only_this:
        said["only_this"] = True
    if isinstance(result, NotSent):
        wait = {} if result.retry_after is None else {"retry_after": result.retry_after}
        return {**said, "outcome": "not_sent", **wait}
    refused = "denied" if _denies(result) else "rejected"
    outcome = refused if isinstance(result, Refused) else "unknown"
    return {**said, "outcome": outcome, **_opted_out(result)}


def _written(report: Any) -> dict[str, Any]:
    more = {
        "detail": report.detail,
        "code": report.code,
        "recipient": report.recipient,
        "event_id": report.event_id,
        "occurred_at": report.occurred_at and report.occurred_at.isoformat(),
    }
    known = {name: value for name, value in more.items() if value is not None}
    return {"msg_uuid": report.ref, "status": report.status, **known, **_opted_out(report)}
