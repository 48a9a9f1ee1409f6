"""``openapi.json``: the description of the REST interface, made of the schemas the views use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Response, jsonify, url_for
from marshmallow import Schema

from ..configs.tokens import ACTIONS
from ..storage.models.status import STATUSES
from . import schemas
from .access import needs


@dataclass(frozen=True)
class _Call:
    """What there is to say of one call."""

    path: str
    method: str
    says: str
    action: str | None = None
    body: type[Schema] | None = None
    data: type[Schema] | None = None
    many: bool = False
    query: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    text: bool = False


CALLS = (
    _Call(
        "/config/create",
        "post",
        "Store a configuration",
        "config.write",
        schemas.ConfigCreate,
        schemas.Id,
    ),
    _Call(
        "/config/update",
        "post",
        "Change a configuration; what is left out, or comes as the mask, is kept",
        "config.write",
        schemas.ConfigUpdate,
        schemas.Id,
        errors=(404, 409),
    ),
    _Call(
        "/config/list",
        "get",
        "List the configurations, secrets masked",
        "config.read",
        data=schemas.Config,
        many=True,
        query=("type", "provider", "key"),
    ),
    _Call(
        "/config/list",
        "post",
        "List the configurations, as GET does",
        "config.read",
        data=schemas.Config,
        many=True,
        query=("type", "provider", "key"),
    ),
    _Call(
        "/config/delete",
        "post",
        "Delete a configuration",
        "config.delete",
        schemas.ConfigDelete,
        errors=(404,),
    ),
    _Call(
        "/config/delete",
        "delete",
        "Delete a configuration",
        "config.delete",
        query=("id",),
        required=("id",),
        errors=(404,),
    ),
    _Call(
        "/config/delete",
        "get",
        "Delete a configuration, for callers without cookies",
        "config.delete",
        query=("id",),
        required=("id",),
        errors=(404, 405),
    ),
    _Call(
        "/sms/send",
        "post",
        "Accept an SMS; the same Idempotency-Key is one message",
        "message.send",
        schemas.SendSMS,
        schemas.Uuid,
        errors=(404, 409),
    ),
    _Call("/sms/retry", "post", "Send again", "message.retry", schemas.RetrySMS, errors=(404, 409)),
    _Call(
        "/sms/delivery_report",
        "post",
        "Tell what became of SMS",
        "message.read",
        schemas.Reports,
        schemas.Status,
        many=True,
    ),
    _Call(
        "/email/send",
        "post",
        "Accept an email, as JSON or as multipart/form-data; the same Idempotency-Key is one "
        "message",
        "message.send",
        schemas.SendEmail,
        schemas.Uuid,
        errors=(404, 409),
    ),
    _Call(
        "/email/retry",
        "post",
        "Send again to those it has not reached",
        "message.retry",
        schemas.Retry,
        errors=(404, 409),
    ),
    _Call(
        "/email/delivery_report",
        "post",
        "Tell what became of emails",
        "message.read",
        schemas.Reports,
        schemas.Status,
        many=True,
    ),
    _Call(
        "/email/sync_inbox",
        "post",
        "Read one mailbox now, or all of them",
        "inbox.sync",
        schemas.SyncInbox,
        schemas.Synced,
        errors=(404, 502),
    ),
    _Call(
        "/email/html/{uuid}",
        "get",
        "Show an email as a page that can do nothing; images=1 fetches its pictures",
        "message.read",
        query=("images",),
        errors=(404,),
        text=True,
    ),
    _Call(
        "/email/file/{uuid}/{place}",
        "get",
        "Give a file of an email; inline=1 shows a picture",
        "message.read",
        query=("inline",),
        errors=(404,),
        text=True,
    ),
    _Call(
        "/messages",
        "get",
        "List messages, newest first",
        "message.read",
        data=schemas.Message,
        many=True,
        query=(
            "channel",
            "status",
            "destination",
            "key",
            "since",
            "until",
            "after",
            "limit",
            "thread",
        ),
    ),
    _Call(
        "/messages/{uuid}",
        "get",
        "Tell a message's story",
        "message.read",
        data=schemas.Story,
        errors=(404,),
    ),
    _Call(
        "/messages/{uuid}/raw",
        "get",
        "Give a received email as it came",
        "message.read",
        errors=(404,),
        text=True,
    ),
    _Call(
        "/messages/{uuid}/cancel",
        "post",
        "Stop a message that has not left",
        "message.cancel",
        errors=(404, 409),
    ),
    _Call(
        "/messages/{uuid}/resolve",
        "post",
        "Say what became of an unknown message",
        "message.resolve",
        schemas.Resolve,
        errors=(404, 409),
    ),
    _Call(
        "/messages/{uuid}/release",
        "post",
        "Let a held message pass",
        "message.release",
        errors=(404, 409),
    ),
    _Call(
        "/suppressions",
        "get",
        "List who must not be written to, newest first",
        "suppression.read",
        data=schemas.Suppression,
        many=True,
        query=("channel", "destination", "after", "limit"),
    ),
    _Call(
        "/suppressions",
        "post",
        "Send no more to a recipient",
        "suppression.write",
        schemas.Suppress,
        errors=(404,),
    ),
    _Call(
        "/suppressions",
        "delete",
        "Let a recipient be written to again",
        "suppression.delete",
        schemas.Unsuppress,
        errors=(404,),
    ),
    _Call("/health", "get", "Tell whether it is well", errors=(503,)),
    _Call("/metrics", "get", "Count, for Prometheus", "metrics.read", text=True, errors=(501,)),
    _Call("/openapi.json", "get", "Describe these calls", "openapi.read"),
)

_ONCE = ("/sms/send", "/email/send")
_KINDS = {
    "/email/html": "text/html",
    "/email/file": "application/octet-stream",
    "/messages": "application/octet-stream",
}
_WORDS = {
    400: "not JSON, or not an object",
    401: "nobody was identified",
    403: "not allowed",
    404: "no such thing",
    405: "not by this method",
    409: "not in the state it is in now",
    413: "too large",
    415: "not sent as JSON",
    422: "fields are wrong; errors names them",
    501: "an extra is not installed",
    502: "the provider does not answer as it should",
    503: "the database is away, or not upgraded",
}


@needs("openapi.read")
def describe() -> Response:
    """Describe the REST interface as OpenAPI 3.1, with the address it has here."""
    root = url_for("communication.health").removesuffix("/health")
    return jsonify({**_document(), "servers": [{"url": root or "/"}]})


@cache
def _document() -> dict[str, Any]:
    from apispec import APISpec
    from apispec.ext.marshmallow import MarshmallowPlugin

    spec = APISpec(
        title="Flask-Communication",
        version=_version(),
        openapi_version="3.1.0",
        plugins=[MarshmallowPlugin()],
        info={"description": "SMS, email and telephony through interchangeable providers."},
    )
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.schema("Error", schema=schemas.Error)
    for call in CALLS:
        spec.path(
            path=call.path, operations={call.method: _operation(call)}, parameters=_in_path(call)
        )
    document: dict[str, Any] = spec.to_dict()
    return document


def _version() -> str:
    try:
        return version("Flask-Communication")
    except PackageNotFoundError:
        return "0"


def _in_path(call: _Call) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", call.path)
    return [
        {"name": one, "in": "path", "required": True, "schema": {"type": "string"}} for one in names
    ]


def _operation(call: _Call) -> dict[str, Any]:
    name = (
        call.path.strip("/")
        .replace("/", "_")
        .replace("{uuid}", "one")
        .replace("{place}", "place")
        .replace(".", "_")
    )
    operation: dict[str, Any] = {
        "operationId": f"{call.method}_{name}",
        "summary": call.says,
        "responses": {"200": _answer("it worked", _success(call))},
    }
    if call.text:
        kind = next(
            (kind for path, kind in _KINDS.items() if call.path.startswith(path)), "text/plain"
        )
        operation["responses"]["200"]["content"] = {kind: {"schema": {"type": "string"}}}
    for status in sorted({*_usual(call), *call.errors}):
        operation["responses"][str(status)] = _answer(_WORDS[status], "Error")
    if call.action is not None:
        operation["security"] = [{"bearer": []}]
        operation["description"] = f"Needs `{call.action}`: {ACTIONS[call.action]}."
    if call.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": call.body} for kind in _sent_as(call)},
        }
    if call.query or call.path in _ONCE:
        operation["parameters"] = _parameters(call)
    return operation


def _sent_as(call: _Call) -> tuple[str, ...]:
    return (
        ("application/json", "multipart/form-data")
        if call.path == "/email/send"
        else ("application/json",)
    )


def _usual(call: _Call) -> tuple[int, ...]:
    if call.action is None:
        return ()
    with_body = (400, 413, 415, 422) if call.body else ()
    with_query = (422,) if call.query else ()
    return (401, 403, 503, *with_body, *with_query)


def _parameters(call: _Call) -> list[dict[str, Any]]:
    if call.path in _ONCE:
        kind = {"type": "string", "minLength": 1, "maxLength": 255}
        return [{"name": "Idempotency-Key", "in": "header", "schema": kind}]
    return [
        {"name": name, "in": "query", "required": name in call.required, "schema": _kind(name)}
        for name in call.query
    ]


def _kind(name: str) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        "status": {"type": "string", "enum": sorted(STATUSES)},
        "limit": {"type": "integer", "minimum": 1, "maximum": 500},
        "since": {"type": "string", "format": "date-time"},
        "until": {"type": "string", "format": "date-time"},
    }
    return kinds.get(name, {"type": "string"})


def _answer(says: str, schema: Any) -> dict[str, Any]:
    return {"description": says, "content": {"application/json": {"schema": schema}}}


def _success(call: _Call) -> dict[str, Any]:
    if call.path == "/openapi.json":
        return {"type": "object"}
    properties: dict[str, Any] = {"success": {"const": True}, "msg": {"type": "string"}}
    if call.data is not None:
        properties["data"] = {"type": "array", "items": call.data} if call.many else call.data
    if call.path == "/health":
        properties["data"] = {"type": "object"}
    if call.path in ("/messages", "/suppressions") and call.many:
        properties["next"] = {"type": ["string", "null"]}
    return {"type": "object", "properties": properties, "required": ["success"]}
