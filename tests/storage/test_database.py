"""Errors of the database become exceptions that say what is wrong, and repeat no value."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication.errors import InvalidQuery
from flask_communication.storage.database import Database


@pytest.fixture
def database(upgraded_url: str) -> Any:
    database = Database(Flask("errors"), None, upgraded_url)
    yield database
    database.engine.dispose()


def refusal(database: Database, sql: str, **given: Any) -> str:
    with pytest.raises(InvalidQuery) as wrong, database.read() as connection:
        connection.execute(text(sql), given)
    return str(wrong.value)


def test_a_number_that_does_not_fit_is_not_called_a_text(database: Database) -> None:
    told = refusal(database, "SELECT CAST(:number AS bigint)", number=10**30)
    assert told == "a number, or a time, is too large or too small for the database"


def test_half_of_a_surrogate_pair_is_called_so(database: Database) -> None:
    assert "surrogate" in refusal(database, "SELECT CAST(:word AS text)", word="\ud800")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT 2147483647 + 1", "too large or too small"),
        (
            "SELECT timestamp '2026-01-01' + make_interval(years => 400000)",
            "too large or too small",
        ),
        ("SELECT 1 / 0", "the database refuses a value (DivisionByZero, 22012)"),
        (
            "INSERT INTO communication_mailbox (cursor) SELECT CAST('CANARY' AS json)",
            "refuses a value",
        ),
    ],
)
def test_each_error_has_its_own_reason_without_the_value(
    upgraded_postgresql_url: str, sql: str, told: str
) -> None:
    database = Database(Flask("errors"), None, upgraded_postgresql_url)
    said = refusal(database, sql)
    database.engine.dispose()
    assert told in said
    assert "CANARY" not in said


def test_a_nul_is_called_so(upgraded_postgresql_url: str) -> None:
    database = Database(Flask("errors"), None, upgraded_postgresql_url)
    assert "NUL" in refusal(database, "SELECT CAST(:word AS text)", word="a\x00")
    database.engine.dispose()
