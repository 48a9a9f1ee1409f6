"""What is below our prefix and is no call of ours: answered in our envelope, as calls are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NoReturn

from flask import Blueprint, request
from flask.sansio.blueprints import BlueprintSetupState
from werkzeug.exceptions import MethodNotAllowed, NotFound

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def answer_the_rest(blueprint: Blueprint, calls: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Answer 405 to other methods than these paths have, and 404 to other paths below the prefix."""
    taken: dict[str, set[str]] = defaultdict(set)
    for path, methods in calls:
        taken[path].update(methods, ["HEAD"] if "GET" in methods else [])
    for path, methods in taken.items():
        others = sorted(METHODS - methods)
        for rule in (path, f"{path}/"):
            blueprint.add_url_rule(
                rule, "wrong_method", wrong_method, methods=others, provide_automatic_options=False
            )
    blueprint.record(_catch_the_rest)


def _catch_the_rest(setup: BlueprintSetupState) -> None:
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


def wrong_method(**parts: Any) -> NoReturn:
    """Say which methods this call has."""
    assert request.url_rule is not None
    has = sorted(METHODS - (request.url_rule.methods or set()))
    raise MethodNotAllowed(has, f"this call has no {request.method}; use {' or '.join(has)}")


def no_such_call(**parts: Any) -> NoReturn:
    """Say that there is nothing here, and where the list is."""
    raise NotFound("there is no such call; GET openapi.json lists them all")
