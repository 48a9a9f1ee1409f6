"""``config/…``: configurations, stored, changed, listed and deleted."""

from __future__ import annotations

from typing import Any

from flask import Response, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import MethodNotAllowed

from ...configs import store
from ...configs.state import current
from ...errors import InvalidConfig
from .. import access, queries, schemas
from ..endpoints import Endpoint
from ..envelope import BadRequest, json_object, loaded, loaded_query, ok

URLENCODED = "application/x-www-form-urlencoded"


# The bodies of create and update are validated where they are stored.
@Endpoint(
    "POST",
    "/config/create",
    "config.write",
    body=schemas.ConfigCreate,
    reads_itself=True,
    answer=schemas.ConfigNumber,
)
def create_config() -> Response:
    """Store a configuration."""
    number = store.create(current(), json_object())
    return ok("Successfully created", data={"id": number})


@Endpoint(
    "POST",
    "/config/update",
    "config.write",
    body=schemas.ConfigUpdate,
    reads_itself=True,
    answer=schemas.ConfigNumber,
    errors=(404, 409),
)
def update_config() -> Response:
    """Change a configuration; what is left out, or comes as the mask, is kept."""
    given = json_object()
    number = store.change(current(), given.pop("id", None), given)
    # The interface this one is compatible with says "created" here too.
    return ok("Successfully created", data={"id": number})


@Endpoint(
    "GET",
    "/config/list",
    "config.read",
    query=queries.ConfigFilter,
    answer=schemas.Config(many=True),
)
@Endpoint(
    "POST",
    "/config/list",
    "config.read",
    name="list_configs_by_post",
    query=queries.ConfigFilter,
    answer=schemas.Config(many=True),
)
def list_configs(query: dict[str, Any]) -> Response:
    """List the configurations, secrets masked."""
    return ok(data=store.listing(current(), **query))


@Endpoint(
    "POST",
    "/config/delete",
    "config.delete",
    body=schemas.ConfigDelete,
    form=schemas.ConfigDeleteForm,
    form_type=URLENCODED,
    is_body_required=False,
    query=queries.WhichConfigElse,
    reads_itself=True,
    errors=(404,),
)
@Endpoint(
    "DELETE",
    "/config/delete",
    "config.delete",
    name="delete_config_by_delete",
    body=schemas.ConfigDelete,
    form=schemas.ConfigDeleteForm,
    form_type=URLENCODED,
    is_body_required=False,
    query=queries.WhichConfigElse,
    reads_itself=True,
    errors=(404,),
)
def delete_config() -> ResponseReturnValue:
    """Delete a configuration."""
    store.delete(current(), _wanted())
    if _wants_page():
        return redirect(url_for(".list_configs"), 303)
    return ok("Successfully deleted")


@Endpoint(
    "GET",
    "/config/delete",
    "config.delete",
    query=queries.WhichConfig,
    reads_itself=True,
    errors=(404, 405),
)
def delete_config_by_get() -> Response:
    """Delete a configuration, for callers without cookies.

    ASVS 5.0, 3.5.3: a safe method must not change anything on ambient credentials. So a browser is
    shown a page that asks, and a script with cookies is told to POST.
    """
    if request.method != "GET":
        raise _not_allowed("use GET, POST or DELETE", "GET")
    wanted = loaded_query(queries.WhichConfig)["id"]
    if not access.has_ambient_credentials() or access.is_token():
        _refuse_prefetch()
        if not current().settings.allow_get_delete:
            raise _not_allowed("COMMUNICATION_ALLOW_GET_DELETE is off; use POST or DELETE")
        store.delete(current(), wanted)
        answer = ok("Successfully deleted")
        answer.headers["Cache-Control"] = "no-store"
        return answer
    if not _wants_page():
        raise _not_allowed("with cookies, use POST or DELETE")
    return _page(wanted)


def _page(wanted: str) -> Response:
    page = render_template(
        "communication/confirm_delete.html",
        id=wanted,
        name=store.name_of(current(), wanted),
        csrf_token=access.csrf_token(),
    )
    answer = make_response(page)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _wanted() -> str | int:
    """Return the id of the configuration to delete, from a form, a JSON body, or the query."""
    if request.mimetype == URLENCODED:
        if len(request.form.getlist("id")) != 1:
            raise InvalidConfig({"id": ["which configuration?"]})
        return request.form["id"]
    if request.content_length or request.mimetype:
        given: str | int = loaded(schemas.ConfigDelete)["id"]
        return given
    asked: str = loaded_query(queries.WhichConfig)["id"]
    return asked


def _wants_page() -> bool:
    accepted = request.accept_mimetypes
    return accepted["text/html"] > accepted["application/json"]


def _refuse_prefetch() -> None:
    purpose = request.headers.get("Sec-Purpose") or request.headers.get("Purpose") or ""
    if "prefetch" in purpose or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise BadRequest(403, "this is no request of a person; nothing was deleted")


def _not_allowed(msg: str, *also: str) -> MethodNotAllowed:
    return MethodNotAllowed([*also, "POST", "DELETE"], msg)
