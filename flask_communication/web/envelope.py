"""Requests and answers of the REST interface: strict loading, one envelope, statuses of errors."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from flask import Blueprint, Response, jsonify, request
from flask.sansio.blueprints import BlueprintSetupState
from marshmallow import Schema, ValidationError, fields
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, default_exceptions
from werkzeug.sansio.response import Response as WSGIResponse

from .. import errors
from ..formats.strict_json import parse_json

# What is wrong with each field of a request.
Fields = Mapping[str, object]

log = logging.getLogger(__name__)

MAX_BODY = 1_000_000
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

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
    """Raised by the web layer for a request that is refused with this HTTP status."""

    def __init__(self, status: int, msg: str, fields: Fields | None = None) -> None:
        super().__init__(msg)
        self.status = status
        self.fields = fields


def ok(msg: str | None = None, **more: object) -> Response:
    """Return the answer to a request that worked: success, msg, and what else there is."""
    return jsonify({"success": True, **({} if msg is None else {"msg": msg}), **more})


def refused(status: int, msg: str, fields: Fields | None = None) -> tuple[Response, int]:
    """Return the answer to a request that did not work, and its status."""
    body: dict[str, Any] = {"success": False, "msg": msg}
    if fields:
        body["errors"] = fields
    return jsonify(body), status


def loaded(schema: type[Schema], largest: int = MAX_BODY) -> dict[str, Any]:
    """Return the JSON body of this request as ``schema`` loads it; raise :class:`BadRequest`."""
    return _fitted(schema, json_object(largest))


def _fitted(schema: type[Schema], given: dict[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = schema().load(given)
    except ValidationError as wrong:
        raise BadRequest(422, "these fields are wrong", _named(wrong.messages)) from None
    return found


def loaded_form(schema: type[Schema], largest: int) -> dict[str, Any]:
    """Return the fields of this multipart form as ``schema`` loads them; raise :class:`BadRequest`.

    A list takes a field that is repeated, an object is JSON, and an empty field is left out.
    """
    if (request.content_length or 0) > largest:
        raise BadRequest(413, f"the body is larger than {largest} bytes")
    known = schema().fields
    _refuse_fields(schema)
    given: dict[str, Any] = {}
    for name in request.form:
        text = request.form[name]
        if isinstance(known[name], fields.List):
            given[name] = request.form.getlist(name)
        elif text:
            given[name] = _json_field(name, text) if isinstance(known[name], fields.Dict) else text
    return _fitted(schema, given)


def _refuse_fields(schema: type[Schema]) -> None:
    """Raise :class:`BadRequest` for fields of this form that are unknown or repeated."""
    loader, wrong = schema(), {}
    for name in sorted(request.form):
        if name not in loader.fields:
            wrong[name] = [loader.error_messages["unknown"]]
        elif isinstance(loader.fields[name], fields.List):
            continue
        elif len(request.form.getlist(name)) > 1:
            wrong[name] = ["is given more than once"]
    if wrong:
        raise BadRequest(422, "these fields are wrong", wrong)


def _json_field(name: str, raw: str) -> object:
    try:
        given = parse_json(raw.encode(), last_wins=True)
    except ValueError as wrong:
        raise BadRequest(
            422, "these fields are wrong", {name: [f"is not valid JSON: {wrong}"]}
        ) from None
    _refuse_large_numbers(given)
    return given


def _named(messages: object) -> dict[str, Any]:
    if not isinstance(messages, dict):
        return {"_": messages}
    return {str(name): why for name, why in messages.items()}


def json_object(largest: int = MAX_BODY) -> dict[str, Any]:
    """Return the JSON object that is the body of this request; raise :class:`BadRequest`."""
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise BadRequest(415, "send JSON, with Content-Type: application/json")
    if (request.content_length or 0) > largest:
        raise BadRequest(413, f"the body is larger than {largest} bytes")
    raw = request.stream.read(largest + 1)
    if len(raw) > largest:
        raise BadRequest(413, f"the body is larger than {largest} bytes")
    given = _parsed(raw)
    if not isinstance(given, dict):
        raise BadRequest(400, "the body must be a JSON object")
    _refuse_large_numbers(given)
    return given


def _parsed(raw: bytes) -> object:
    try:
        return parse_json(raw, last_wins=True)
    except ValueError as wrong:
        raise BadRequest(400, f"the body is not valid JSON: {wrong}") from None


def _refuse_large_numbers(given: object) -> None:
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
    return "\x00" not in text and len(text) <= 1000


def loaded_query(schema: type[Schema]) -> dict[str, Any]:
    """Return the parameters of the query as ``schema`` loads them; an empty one is left out.

    Raise :class:`BadRequest` for unknown or repeated ones, :class:`InvalidQuery` for wrong values.
    """
    loader, wrong = schema(), {}
    for name in sorted(request.args):
        if name not in loader.fields:
            wrong[name] = ["is not a parameter of this call"]
        elif len(request.args.getlist(name)) > 1:
            wrong[name] = ["is given more than once"]
        elif not _is_storable(request.args[name]):
            wrong[name] = ["is not valid"]
    if wrong:
        raise BadRequest(422, "these parameters are wrong", wrong)
    try:
        found: dict[str, Any] = loader.load(
            {name: one for name, one in request.args.items() if one}
        )
    except ValidationError as invalid:
        raise errors.InvalidQuery(invalid.messages_dict) from None
    return found


def handle_errors(blueprint: Blueprint) -> None:
    """Answer the errors of a blueprint's views in our envelope; the host's pages keep theirs."""
    blueprint.register_error_handler(BadRequest, _bad_request)
    blueprint.register_error_handler(errors.CommunicationError, _ours)
    blueprint.register_error_handler(OperationalError, _away)
    blueprint.register_error_handler(HTTPException, _theirs)
    # Each by its number too: else a handler of the application for, say, 404 would come first.
    for number in default_exceptions:
        blueprint.register_error_handler(number, _theirs)


def _bad_request(wrong: BadRequest) -> tuple[Response, int]:
    return refused(wrong.status, str(wrong), wrong.fields)


def _ours(wrong: errors.CommunicationError) -> tuple[Response, int]:
    status = next((code for kind, code in STATUS if isinstance(wrong, kind)), 500)
    if status == 500:
        log.error("a request failed: %s", wrong)
    return refused(status, str(wrong), getattr(wrong, "errors", None))


def _away(wrong: OperationalError) -> tuple[Response, int]:
    log.error("a request failed: the database cannot be used: %s", str(wrong.orig).strip())
    return refused(503, "the database cannot be used now; try again, and look at GET health")


def _theirs(wrong: HTTPException) -> WSGIResponse | tuple[Response, int]:
    if wrong.response is not None:
        return wrong.response
    answer, status = refused(wrong.code or 500, wrong.description or wrong.name)
    for name, value in wrong.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value
    return answer, status


def answer_other_requests(blueprint: Blueprint, ours: Iterable[tuple[str, str]]) -> None:
    """Answer 405 to other methods of our paths, and 404 to other paths below the prefix."""
    taken: dict[str, set[str]] = defaultdict(set)
    for path, method in ours:
        taken[path].update([method, "HEAD"] if method == "GET" else [method])
    for path, methods in taken.items():
        others = sorted(METHODS - methods)
        for rule in (path, f"{path}/"):
            blueprint.add_url_rule(
                rule, "wrong_method", wrong_method, methods=others, provide_automatic_options=False
            )
    blueprint.record(_answer_other_paths)


def _answer_other_paths(setup: BlueprintSetupState) -> None:
    # Without a prefix everything would be below it, and the host's own 404 is the host's.
    if (setup.url_prefix or "").strip("/"):
        for rule in ("/", "/<path:path>"):
            setup.add_url_rule(
                rule,
                "no_such_call",
                no_such_call,
                methods=sorted(METHODS),
                provide_automatic_options=False,
            )


def wrong_method(**_parts: str) -> NoReturn:
    """Raise 405, and name the methods that this path has."""
    assert request.url_rule is not None
    has = sorted(METHODS - (request.url_rule.methods or set()))
    raise MethodNotAllowed(has, f"this call has no {request.method}; use {' or '.join(has)}")


def no_such_call(**_parts: str) -> NoReturn:
    """Raise 404, and name the list of all endpoints."""
    raise NotFound("there is no such call; GET openapi.json lists them all")
