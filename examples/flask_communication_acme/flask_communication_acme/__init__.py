"""Acme SMS for Flask-Communication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from flask_communication.providers import (
    Accepted,
    Http,
    OutboundSMS,
    OutcomeUnknown,
    Provider,
    Refused,
    Reply,
    Report,
    ReportStatus,
    classify,
)

# A status of Acme -> ours. A report with another status is left out until the status changes.
STATUSES: Mapping[str, ReportStatus] = {
    "DELIVRD": "delivered",
    "UNDELIV": "undelivered",
    "EXPIRED": "undelivered",
    "ENROUTE": "sent",
}


class Acme(Provider):
    """Send SMS through Acme's JSON interface."""

    name = "acme"
    label = "Acme SMS"
    config_schema = {
        "type": "object",
        "required": ["api_key"],
        "properties": {
            "api_key": {"type": "string", "title": "API key", "writeOnly": True},
            "base_url": {
                "type": "string",
                "title": "Address",
                "default": "https://api.acme.example",
                "destination": True,
            },
        },
    }
    # Acme ignores a second request with the same `reference` for a day.
    idempotency_window = 24 * 3600

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        self._http = Http(transport=transport)

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Send one SMS."""
        body = {"to": sms.destination, "text": sms.msg, "reference": sms.key}
        reply = self._post("/v1/messages", body, config)
        if not isinstance(reply.json, dict) or not reply.json.get("id"):
            raise OutcomeUnknown("Acme answered without an id", http_status=reply.status)
        return Accepted(str(reply.json["id"]))

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Fetch the delivery reports of messages."""
        reply = self._post("/v1/reports", {"ids": list(refs)}, config)
        if not isinstance(reply.json, dict):
            raise OutcomeUnknown("Acme's reports cannot be read", http_status=reply.status)
        found = reply.json.get("reports")
        # The reply may have any shape; a report that cannot be read is not known yet.
        return [
            Report(str(one["id"]), STATUSES[str(one["state"])], code=one.get("error"))
            for one in (found if isinstance(found, list) else ())
            if isinstance(one, dict) and one.get("id") and str(one.get("state")) in STATUSES
        ]

    def _post(self, path: str, body: Mapping[str, Any], config: Mapping[str, Any]) -> Reply:
        # Check before anything leaves: another exception would count as "may have left".
        if not config.get("api_key"):
            raise Refused("the configuration has no api_key")
        address = str(config.get("base_url") or "https://api.acme.example").rstrip("/")
        headers = {"Authorization": f"Bearer {config['api_key']}"}
        return classify(self._http.post_json(address + path, body, headers), config)
