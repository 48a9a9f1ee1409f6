"""What a database complains of, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, OperationalError, ProgrammingError

from ..errors import DatabaseError, InvalidQuery, NotUpgraded

_NO_TEXT = "a text has a NUL character or half of a surrogate pair"
_TOO_LARGE = "a number, or a time, is too large or too small for the database"
# By SQLSTATE (PostgreSQL's appendix A); psycopg refuses a NUL by itself, and so without one.
_WORDS = {
    None: _NO_TEXT,
    "22021": _NO_TEXT,
    "22P05": _NO_TEXT,
    "22001": "a text is longer than the database keeps",
    "22003": _TOO_LARGE,
    "22008": _TOO_LARGE,
    "22015": _TOO_LARGE,
}


@contextmanager
def explained() -> Iterator[None]:
    """Turn the database errors that a user can mend into words."""
    try:
        yield
    except UnicodeEncodeError as wrong:
        raise InvalidQuery(_NO_TEXT) from wrong
    except OverflowError as wrong:
        # SQLite's driver says so before it asks.
        if "SQLite" not in str(wrong):
            raise
        raise InvalidQuery(_TOO_LARGE) from wrong
    except DataError as wrong:
        raise InvalidQuery(_said(wrong)) from wrong
    except (OperationalError, ProgrammingError) as wrong:
        said = str(wrong.orig)
        if "communication_" in said and ("no such" in said or "does not exist" in said):
            raise NotUpgraded("our tables are missing or old; run: flask communication upgrade") from wrong
        if "database is locked" in said:
            raise DatabaseError(
                "SQLite stayed locked by another transaction; if it is your own, pass its session as "
                "session=, else commit it sooner"
            ) from wrong
        raise


def _said(wrong: DataError) -> str:
    state = getattr(wrong.orig, "sqlstate", None) or getattr(wrong.orig, "pgcode", None)
    # Its own words may repeat the value, which may be a secret.
    return _WORDS.get(state, f"the database refuses a value ({type(wrong.orig).__name__}, {state})")
