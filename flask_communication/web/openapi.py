"""``openapi.json``: the REST interface as OpenAPI 3.1, made from the endpoints."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Response, jsonify, url_for
from marshmallow import fields

from ..configs.state import current
from ..configs.tokens import ACTIONS
from ..storage.models import CHANNELS
from . import schemas
from .endpoints import ENDPOINTS, IDEMPOTENCY_KEY, MULTIPART, Endpoint

_MEANINGS = {
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


# A file of a form: `format` is how OpenAPI 3.0 wrote it, which many generators still read.
_FILE = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


@Endpoint("GET", "/openapi.json", "openapi.read", produces="application/json")
def openapi() -> Response:
    """Describe these endpoints as OpenAPI 3.1."""
    root = url_for("communication.health").removesuffix("/health")
    document = _document(tuple(current().channel_names))
    return jsonify({**document, "servers": [{"url": root or "/"}]})


@cache
def _document(channels: tuple[str, ...]) -> dict[str, Any]:
    from apispec import APISpec
    from apispec.ext.marshmallow import MarshmallowPlugin

    plugin = MarshmallowPlugin()
    spec = APISpec(
        title="Flask-Communication",
        version=_version(),
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": "SMS, email and telephony through interchangeable providers."},
    )

    def name_channels(_: object, field: fields.Field[object], **_options: object) -> dict[str, Any]:
        is_channel = field.metadata.get("enum") == list(CHANNELS)
        return {"enum": list(channels)} if is_channel else {}

    # An application may have channels of its own.
    assert plugin.converter is not None
    plugin.converter.add_attribute_function(name_channels)  # type: ignore[no-untyped-call]
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.schema("Error", schema=schemas.Error)
    for one in ENDPOINTS:
        spec.path(path=one.openapi_path, operations={one.method.lower(): _operation(one)})
    document: dict[str, Any] = spec.to_dict()
    for one in ENDPOINTS:
        if one.form is not None:
            _finish_form(document["components"]["schemas"][one.form.__name__], one.form_type)
    return document


def _finish_form(schema: dict[str, Any], form_type: str) -> None:
    """Describe what a marshmallow schema cannot say of a form: it has no null, but any files."""
    for kind in schema["properties"].values():
        if isinstance(kind["type"], list):
            kind["type"] = [one for one in kind["type"] if one != "null"]
        if "enum" in kind:
            kind["enum"] = [one for one in kind["enum"] if one is not None]
    if form_type == MULTIPART:
        schema["additionalProperties"] = _FILE


def _version() -> str:
    try:
        return version("Flask-Communication")
    except PackageNotFoundError:
        return "0"


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": (endpoint.view.__doc__ or "").partition("\n")[0].removesuffix("."),
        "responses": {"200": _success(endpoint)},
    }
    for status in sorted({*_usual_errors(endpoint), *endpoint.errors}):
        operation["responses"][str(status)] = _answer(_MEANINGS[status], "Error")
    if endpoint.action is not None:
        operation["security"] = [{"bearer": []}]
        operation["description"] = f"Needs `{endpoint.action}`: {ACTIONS[endpoint.action]}."
    if endpoint.body is not None:
        content = _body(endpoint)
        operation["requestBody"] = {"required": endpoint.is_body_required, "content": content}
    if parameters := _parameters(endpoint):
        operation["parameters"] = parameters
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    path = endpoint.path.strip("/").replace("<uuid>", "one")
    for mark in "/.":
        path = path.replace(mark, "_")
    return f"{endpoint.method.lower()}_{path.replace('<', '').replace('>', '')}"


def _body(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": endpoint.body}}
    if endpoint.form is not None:
        content[endpoint.form_type] = {"schema": endpoint.form}
    return content


def _usual_errors(endpoint: Endpoint) -> tuple[int, ...]:
    if endpoint.action is None:
        return ()
    of_body = (400, 413, 415, 422) if endpoint.body else ()
    of_query = (422,) if endpoint.query else ()
    return (401, 403, 503, *of_body, *of_query)


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in endpoint.path_parts
    ]
    if endpoint.is_idempotent:
        kind = {"type": "string", "minLength": 1, "maxLength": 255}
        parameters.append({"name": IDEMPOTENCY_KEY, "in": "header", "schema": kind})
    if endpoint.query is not None:
        parameters.append({"in": "query", "schema": endpoint.query})
    return parameters


def _answer(says: str, schema: object, media_type: str = "application/json") -> dict[str, Any]:
    return {"description": says, "content": {media_type: {"schema": schema}}}


def _success(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.produces is not None:
        kind = "object" if endpoint.produces == "application/json" else "string"
        return _answer("it worked", {"type": kind}, endpoint.produces)
    properties: dict[str, Any] = {"success": {"const": True}, "msg": {"type": "string"}}
    if endpoint.answer is not None:
        properties["data"] = endpoint.answer
    if endpoint.is_paged:
        properties["next"] = {"type": ["string", "null"]}
    schema = {"type": "object", "properties": properties, "required": ["success"]}
    return _answer("it worked", schema)
