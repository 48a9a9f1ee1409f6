"""The blueprint: pages and REST, at any prefix, in any number of applications."""

from __future__ import annotations

from flask import Blueprint

# These declare the endpoints.
from . import openapi as openapi
from . import rest as rest
from . import sandbox as sandbox
from .access import exempt_from_the_hosts_csrf
from .endpoints import ENDPOINTS
from .envelope import answer_other_requests, handle_errors


def make_blueprint() -> Blueprint:
    """Make the blueprint; it keeps nothing of any application, so one serves several."""
    blueprint = Blueprint(
        "communication",
        __name__,
        template_folder="../templates",
        static_folder="../static/communication",
        static_url_path="/static",
    )
    for one in ENDPOINTS:
        view = one.guarded_view()
        # Every path also works with the slash at its end.
        for rule in (one.path, f"{one.path}/"):
            blueprint.add_url_rule(
                rule, one.name, view, methods=[one.method], provide_automatic_options=False
            )
    answer_other_requests(blueprint, [(one.path, one.method) for one in ENDPOINTS])
    handle_errors(blueprint)
    exempt_from_the_hosts_csrf(blueprint)
    return blueprint
