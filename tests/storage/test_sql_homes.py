"""SQL that changes messages stands only in the modules that own a part of a message's life."""

from __future__ import annotations

import re
from pathlib import Path

import flask_communication

PACKAGE = Path(flask_communication.__file__).parent
INSERTS = {
    "delivery/outbox.py": "accepts a message that is to be sent",
    "email/incoming.py": "stores a received email",
    "sms/incoming.py": "stores a received SMS",
}
UPDATES = {
    "delivery/outbox.py": "claim, start, settle, dismiss, rescue",
    "delivery/actions.py": "what a person does: retry, cancel, resolve, release",
    "delivery/reports.py": "delivery reports",
    "delivery/policy/limits.py": "admitted_at, in the transaction of a claim",
    "email/bounces.py": "the provider's id of an email that came back",
    "storage/retention.py": "removes texts",
}
DELETES = {"storage/retention.py": "deletes old messages, and erases"}


def modules_with(statement: str) -> set[str]:
    # A statement may continue in the next string of the source.
    pattern = re.compile(statement.replace(" ", r'[\s"f]+') + r"\b", re.IGNORECASE)
    return {
        module.relative_to(PACKAGE).as_posix()
        for module in PACKAGE.rglob("*.py")
        if pattern.search(module.read_text())
    }


def test_messages_are_inserted_in_few_modules() -> None:
    assert modules_with("INSERT INTO communication_message") == set(INSERTS)


def test_messages_are_updated_in_few_modules() -> None:
    assert modules_with("UPDATE communication_message") == set(UPDATES)


def test_messages_are_deleted_in_one_module() -> None:
    assert modules_with("DELETE FROM communication_message") == set(DELETES)


def test_nothing_changes_a_message_through_the_orm() -> None:
    assert not modules_with(r"(?:insert|update|delete)\(Message\)")
    assert not modules_with(r"session\.(?:add|merge)\(")
