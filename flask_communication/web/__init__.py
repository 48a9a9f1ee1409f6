"""The blueprint: pages and REST, at any prefix, in any number of applications."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint

from . import nowhere, openapi, sandbox
from .access import exempt_from_the_hosts_csrf
from .envelope import handle_errors
from .rest import configs, email, health, messages, suppressions

# Endpoint, path, methods, view. Every path also works with, or without, the slash at its end.
ROUTES: tuple[tuple[str, str, tuple[str, ...], Callable[..., Any]], ...] = (
    ("create_config", "/config/create", ("POST",), configs.create),
    ("update_config", "/config/update", ("POST",), configs.update),
    ("list_configs", "/config/list", ("GET", "POST"), configs.listing),
    ("delete_config", "/config/delete", ("POST", "DELETE"), configs.delete),
    ("delete_config_by_get", "/config/delete", ("GET",), configs.delete_by_get),
    ("send_sms", "/sms/send", ("POST",), messages.send_sms),
    ("retry_sms", "/sms/retry", ("POST",), messages.retry_sms),
    ("report_sms", "/sms/delivery_report", ("POST",), messages.report_sms),
    ("send_email", "/email/send", ("POST",), email.send),
    ("retry_email", "/email/retry", ("POST",), email.retry),
    ("report_email", "/email/delivery_report", ("POST",), email.report),
    ("sync_inbox", "/email/sync_inbox", ("POST",), email.sync_inbox),
    ("show_html", "/email/html/<uuid>", ("GET",), sandbox.html),
    ("show_file", "/email/file/<uuid>/<place>", ("GET",), sandbox.file),
    ("list_messages", "/messages", ("GET",), messages.list_messages),
    ("show_message", "/messages/<uuid>", ("GET",), messages.show_message),
    ("show_raw", "/messages/<uuid>/raw", ("GET",), sandbox.raw),
    ("cancel_message", "/messages/<uuid>/cancel", ("POST",), messages.cancel_message),
    ("resolve_message", "/messages/<uuid>/resolve", ("POST",), messages.resolve_message),
    ("release_message", "/messages/<uuid>/release", ("POST",), messages.release_message),
    ("list_suppressions", "/suppressions", ("GET",), suppressions.listing),
    ("create_suppression", "/suppressions", ("POST",), suppressions.create),
    ("delete_suppression", "/suppressions", ("DELETE",), suppressions.delete),
    ("health", "/health", ("GET",), health.health),
    ("metrics", "/metrics", ("GET",), health.metrics),
    ("openapi", "/openapi.json", ("GET",), openapi.describe),
)


def make_blueprint() -> Blueprint:
    """Make the blueprint; it keeps nothing of any application, so one serves several."""
    blueprint = Blueprint(
        "communication",
        __name__,
        template_folder="../templates",
        static_folder="../static/communication",
        static_url_path="/static",
    )
    for endpoint, path, methods, view in ROUTES:
        for rule in (path, f"{path}/"):
            blueprint.add_url_rule(
                rule, endpoint, view, methods=methods, provide_automatic_options=False
            )
    nowhere.answer_the_rest(blueprint, [(path, methods) for _, path, methods, _ in ROUTES])
    handle_errors(blueprint)
    exempt_from_the_hosts_csrf(blueprint)
    return blueprint
