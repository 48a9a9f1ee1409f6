"""``config/…``: the seed's four calls."""

from __future__ import annotations

from typing import Any

from flask import make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import MethodNotAllowed

from ...configs import store
from ...configs.state import current
from ...errors import InvalidConfig
from .. import access, schemas
from ..envelope import BadRequest, json_object, loaded, ok, query


@access.needs("config.write")
def create() -> Any:
    """Store a configuration."""
    number = store.create(current(), json_object())
    return ok("Successfully created", data={"id": number})


@access.needs("config.write")
def update() -> Any:
    """Change a configuration; the seed has it say "created" here too."""
    given = json_object()
    number = store.change(current(), given.pop("id", None), given)
    return ok("Successfully created", data={"id": number})


@access.needs("config.read")
def listing() -> Any:
    """List the configurations, secrets masked."""
    wanted = query("type", "provider", "key")
    return ok(data=store.listing(current(), **wanted))


@access.needs("config.delete")
def delete() -> Any:
    """Delete a configuration by POST or DELETE."""
    given = _form() if request.mimetype == "application/x-www-form-urlencoded" else _asked()
    store.delete(current(), given)
    if _wants_page():
        return redirect(url_for(".list_configs"), 303)
    return ok("Successfully deleted")


@access.needs("config.delete")
def delete_by_get() -> Any:
    """Delete by GET, as the seed has it, where no page elsewhere can make a browser do it.

    ASVS 5.0, 3.5.3: a safe method must not change anything on ambient credentials. So a browser is
    shown a page that asks, and a script with cookies is told to POST.
    """
    if request.method != "GET":
        raise _not_allowed("use GET, POST or DELETE", "GET")
    wanted = _id_of(query("id"))
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


def _page(wanted: str) -> Any:
    page = render_template(
        "communication/confirm_delete.html",
        id=wanted,
        name=store.name_of(current(), wanted),
        csrf_token=access.csrf_token(),
    )
    answer = make_response(page)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _asked() -> Any:
    if request.content_length or request.mimetype:
        return loaded(schemas.ConfigDelete)["id"]
    return _id_of(query("id"))


def _form() -> str:
    if len(request.form.getlist("id")) != 1:
        raise InvalidConfig({"id": ["which configuration?"]})
    return request.form["id"]


def _id_of(given: dict[str, str]) -> str:
    if "id" not in given:
        raise InvalidConfig({"id": ["which configuration? add ?id="]})
    return given["id"]


def _wants_page() -> bool:
    accepted = request.accept_mimetypes
    return accepted["text/html"] > accepted["application/json"]


def _refuse_prefetch() -> None:
    purpose = request.headers.get("Sec-Purpose") or request.headers.get("Purpose") or ""
    if "prefetch" in purpose or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise BadRequest(403, "this is no request of a person; nothing was deleted")


def _not_allowed(msg: str, *also: str) -> MethodNotAllowed:
    return MethodNotAllowed([*also, "POST", "DELETE"], msg)
