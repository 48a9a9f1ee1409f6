"""A provider package as the seed's document describes one, by somebody who never met ours.

Its schemas refuse every field the document does not name. What it "rang" is kept in memory.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Flask, jsonify, request
from marshmallow import RAISE, Schema, ValidationError, fields
from werkzeug.serving import make_server


class Strict(Schema):
    class Meta:
        unknown = RAISE


class Send(Strict):
    msg = fields.String(required=True)
    destination = fields.String(required=True)
    config = fields.Dict(required=True)


class Retry(Strict):
    msg_uuid = fields.String(required=True)


class DeliveryReport(Strict):
    msg_uuids = fields.List(fields.String(), required=True)


@dataclass
class Rang:
    """One telephone that rang."""

    msg_uuid: str
    destination: str
    msg: str
    key: str | None


@dataclass
class SeedProvider:
    """The provider's memory; ``word`` is what it says in every delivery report."""

    word: str = "delivered"
    rang: list[Rang] = field(default_factory=list)
    configs: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Any] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def duplicates(self) -> int:
        """How often a telephone rang again for the same text."""
        seen = Counter((one.destination, one.msg) for one in self.rang)
        return sum(times - 1 for times in seen.values())

    def ring(self, destination: str, msg: str) -> str:
        with self.lock:
            rang = Rang(
                f"seed-{next(self.numbers)}",
                destination,
                msg,
                request.headers.get("Idempotency-Key"),
            )
            self.rang.append(rang)
            return rang.msg_uuid

    def find(self, msg_uuid: str) -> Rang | None:
        return next((one for one in self.rang if one.msg_uuid == msg_uuid), None)

    def load(self, schema: type[Strict]) -> dict[str, Any]:
        try:
            loaded: dict[str, Any] = schema().load(request.get_json())
        except ValidationError as exc:
            self.refused.append(exc.messages)
            raise
        return loaded


def seed_blueprint(
    memory: SeedProvider, name: str = "seedsms", import_name: str = "shop.packages.seedsms"
) -> Blueprint:
    """Return the blueprint of such a package, with the seed's three calls."""
    blueprint = Blueprint(name, import_name, root_path="/")

    @blueprint.errorhandler(ValidationError)
    def refuse(exc: ValidationError) -> Any:
        return jsonify(success=False, msg="Invalid request", errors=exc.messages), 400

    @blueprint.post("/sms/send/")
    def send() -> Any:
        body = memory.load(Send)
        memory.configs.append(body["config"])
        msg_uuid = memory.ring(body["destination"], body["msg"])
        data = {"msg_uuid": msg_uuid, "extra_data": {}}
        return jsonify(success=True, msg="Successfully queued", data=data)

    @blueprint.post("/sms/retry/")
    def retry() -> Any:
        known = memory.find(memory.load(Retry)["msg_uuid"])
        if known is None:
            return jsonify(success=False, msg="No such message"), 404
        memory.ring(known.destination, known.msg)
        return jsonify(success=True, msg="Successfully queued")

    @blueprint.post("/sms/delivery_report/")
    def delivery_report() -> Any:
        asked = memory.load(DeliveryReport)["msg_uuids"]
        known = [one for one in asked if memory.find(one)]
        return jsonify(
            success=True, data=[{"msg_uuid": one, "status": memory.word} for one in known]
        )

    return blueprint


def seed_app(memory: SeedProvider, prefix: str = "/seedsms") -> Flask:
    """Return an application that is nothing but such a provider."""
    app = Flask("shop", root_path="/")
    app.register_blueprint(seed_blueprint(memory), url_prefix=prefix)
    return app


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """Serve an application on the loopback; yield its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
