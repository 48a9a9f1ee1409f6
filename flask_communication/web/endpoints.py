"""The endpoints of the REST interface, each declared once, at its view.

Made from the declaration: the URL rules, the check of the action, the loading of body and query,
and the OpenAPI document.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

from flask import request
from flask.typing import ResponseReturnValue
from marshmallow import Schema

from ..configs.tokens import ACTIONS
from .access import admit
from .envelope import MAX_BODY, loaded, loaded_form, loaded_query

View = Callable[..., ResponseReturnValue]
AnyView = TypeVar("AnyView", bound=View)

IDEMPOTENCY_KEY = "Idempotency-Key"
MULTIPART = "multipart/form-data"


def _no_view() -> ResponseReturnValue:
    raise NotImplementedError("this endpoint decorates no view")


@dataclass(frozen=True)
class Endpoint:
    """The declaration of an endpoint, as a decorator of its view: address, action, input, answer.

    The view is called with the parts of the path and, if they are declared, ``body`` and ``query``
    as their schemas load them, and ``idempotency_key``.
    """

    method: str
    path: str
    # What its caller must be allowed to do; None for an endpoint that anybody may use.
    action: str | None
    # The name for url_for, if it is not that of the view.
    name: str = ""
    body: type[Schema] | None = None
    # The body as a form; one of multipart/form-data brings files too.
    form: type[Schema] | None = None
    form_type: str = MULTIPART
    is_body_required: bool = True
    largest_body: int = MAX_BODY
    query: type[Schema] | None = None
    # Whether the view reads the request by itself; body and query are then only described.
    reads_itself: bool = False
    is_idempotent: bool = False
    # What `data` of the answer is: a schema, or an OpenAPI schema object.
    answer: type[Schema] | Schema | dict[str, Any] | None = None
    # Whether the answer has the cursor `next`.
    is_paged: bool = False
    # The content type of an answer that is not our JSON envelope.
    produces: str | None = None
    # The statuses of errors besides those that follow from the rest.
    errors: tuple[int, ...] = ()
    view: View = _no_view

    def __call__(self, view: AnyView) -> AnyView:
        """Add this endpoint, with its view, to :data:`ENDPOINTS`; return the view as it is."""
        if self.action is not None and self.action not in ACTIONS:
            raise ValueError(f"{self.action!r} is no action; add it to configs.tokens.ACTIONS")
        ENDPOINTS.append(replace(self, view=view, name=self.name or view.__name__))
        return view

    def guarded_view(self) -> View:
        """Return the view for Flask: it checks the action, loads the request and calls the view."""

        @wraps(self.view)
        def guarded(**parts: str) -> ResponseReturnValue:
            if self.action is not None:
                admit(self.action, parts or None)
            return self.view(**parts, **self._loaded())

        guarded.action = self.action  # type: ignore[attr-defined]
        return guarded

    def _loaded(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self.reads_itself:
            return given
        if self.query is not None:
            given["query"] = loaded_query(self.query)
        if self.form is not None and request.mimetype == self.form_type:
            given["body"] = loaded_form(self.form, self.largest_body)
        elif self.body is not None:
            given["body"] = loaded(self.body, self.largest_body)
        if self.is_idempotent:
            given["idempotency_key"] = request.headers.get(IDEMPOTENCY_KEY)
        return given

    @property
    def openapi_path(self) -> str:
        """The path as OpenAPI writes it: ``{uuid}`` for ``<uuid>``."""
        return re.sub(r"<(\w+)>", r"{\1}", self.path)

    @property
    def path_parts(self) -> list[str]:
        """The names of the variable parts of the path."""
        return re.findall(r"<(\w+)>", self.path)


# All endpoints, in the order in which their modules are imported.
ENDPOINTS: list[Endpoint] = []
