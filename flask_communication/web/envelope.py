"""What comes in and goes out as JSON: one strict loader, one envelope, one table of errors."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Response, jsonify, request
from marshmallow import Schema, ValidationError
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, default_exceptions

from .. import errors
from ..formats.strict_json import parse_json

log = logging.getLogger(__name__)

MAX_BODY = 1_000_000

# The first that fits counts.
STATUS: tuple[tuple[type[errors.CommunicationError], int], ...] = (
    (errors.InvalidMessage, 422),
    (errors.InvalidConfig, 422),
    (errors.InvalidQuery, 422),
    (errors.ConfigNotFound, 404),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.SessionConflict, 409),
    (errors.DatabaseError, 503),
)


class BadRequest(errors.CommunicationError):
    """Raised by the web layer for a request that is wrong before it means anything."""

    def __init__(self, status: int, msg: str, fields: Any = None) -> None:
        super().__init__(msg)
        self.status = status
        self.fields = fields


def ok(msg: str | None = None, **more: Any) -> Response:
    """Answer as the seed does: success, msg, and what else there is."""
    return jsonify({"success": True, **({} if msg is None else {"msg": msg}), **more})


def refused(status: int, msg: str, fields: Any = None) -> tuple[Response, int]:
    """Answer that it did not work, and what to do."""
    body: dict[str, Any] = {"success": False, "msg": msg}
    if fields:
        body["errors"] = fields
    return jsonify(body), status


def loaded(schema: type[Schema], longest: int = MAX_BODY) -> dict[str, Any]:
    """Return the JSON body of this request as ``schema`` has it; raise :class:`BadRequest`."""
    return fitted(schema, json_object(longest))


def fitted(schema: type[Schema], given: Any) -> dict[str, Any]:
    """Return what was given as ``schema`` has it; raise :class:`BadRequest`."""
    try:
        found: dict[str, Any] = schema().load(given)
    except ValidationError as wrong:
        raise BadRequest(422, "these fields are wrong", _named(wrong.messages)) from None
    return found


def json_field(name: str, raw: str) -> Any:
    """Return the JSON of a form's field; raise :class:`BadRequest` that names it."""
    try:
        given = parse_json(raw.encode(), last_wins=True)
    except ValueError as wrong:
        raise BadRequest(
            422, "these fields are wrong", {name: [f"is not valid JSON: {wrong}"]}
        ) from None
    _refuse_large_numbers(given)
    return given


def _named(messages: Any) -> dict[str, Any]:
    if not isinstance(messages, dict):
        return {"_": messages}
    return {str(name): why for name, why in messages.items()}


def json_object(longest: int = MAX_BODY) -> dict[str, Any]:
    """Return the JSON object that is the body of this request; raise :class:`BadRequest`."""
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise BadRequest(415, "send JSON, with Content-Type: application/json")
    if (request.content_length or 0) > longest:
        raise BadRequest(413, f"the body is larger than {longest} bytes")
    raw = request.stream.read(longest + 1)
    if len(raw) > longest:
        raise BadRequest(413, f"the body is larger than {longest} bytes")
    given = _parsed(raw)
    if not isinstance(given, dict):
        raise BadRequest(400, "the body must be a JSON object")
    _refuse_large_numbers(given)
    return given


def _parsed(raw: bytes) -> Any:
    try:
        return parse_json(raw, last_wins=True)
    except ValueError as wrong:
        raise BadRequest(400, f"the body is not valid JSON: {wrong}") from None


def _refuse_large_numbers(given: Any) -> None:
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, list):
        for value in given:
            _refuse_large_numbers(value)
    elif isinstance(given, int) and not -(2**63) <= given < 2**63:
        raise BadRequest(400, "a number does not fit into 64 bits")


def _is_storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def query(*names: str) -> dict[str, str]:
    """Return the query's parameters of these names.

    Raise :class:`BadRequest` for others or repeats.
    """
    strangers = sorted(set(request.args) - set(names))
    repeated = sorted(name for name in names if len(request.args.getlist(name)) > 1)
    if strangers or repeated:
        fields = {name: ["is not a parameter of this call"] for name in strangers}
        fields |= {name: ["is given more than once"] for name in repeated}
        raise BadRequest(422, "these parameters are wrong", fields)
    given = {name: request.args[name] for name in names if request.args.get(name, "") != ""}
    for name, value in given.items():
        if not _is_storable(value) or len(value) > 1000:
            raise BadRequest(422, "these parameters are wrong", {name: ["is not valid"]})
    return given


def handle_errors(blueprint: Blueprint) -> None:
    """Give a blueprint's views our envelope for every error.

    The host's own pages stay as they are.
    """
    blueprint.register_error_handler(BadRequest, _bad_request)
    blueprint.register_error_handler(errors.CommunicationError, _ours)
    # Each by its number too: else a handler of the application for, say, 404 would come first.
    blueprint.register_error_handler(OperationalError, _away)
    blueprint.register_error_handler(HTTPException, _theirs)
    for number in default_exceptions:
        blueprint.register_error_handler(number, _theirs)


def _bad_request(wrong: BadRequest) -> Any:
    return refused(wrong.status, str(wrong), wrong.fields)


def _ours(wrong: errors.CommunicationError) -> Any:
    status = next((code for kind, code in STATUS if isinstance(wrong, kind)), 500)
    if status == 500:
        log.error("a request failed: %s", wrong)
    return refused(status, str(wrong), getattr(wrong, "errors", None))


def _away(wrong: OperationalError) -> Any:
    log.error("a request failed: the database cannot be used: %s", str(wrong.orig).strip())
    return refused(503, "the database cannot be used now; try again, and look at GET health")


def _theirs(wrong: HTTPException) -> Any:
    if wrong.response is not None:
        return wrong.response
    answer, status = refused(wrong.code or 500, wrong.description or wrong.name)
    for name, value in wrong.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value
    return answer, status
