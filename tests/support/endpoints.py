"""The rules of our blueprint in an application, and those that need no action."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import Rule

# Anybody may use these; the last two answer 405 and 404.
PUBLIC = frozenset(
    f"communication.{name}" for name in ("health", "static", "wrong_method", "no_such_call")
)


def ours(app: Flask) -> list[Rule]:
    """Return the rules of our blueprint."""
    return [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("communication.")]
