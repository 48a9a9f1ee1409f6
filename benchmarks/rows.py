"""A long history, written with one statement: what the tables look like after years."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.engine import Connection

COLUMNS = (
    "uuid, channel, direction, status, destination, body, config_id, priority, due_at, fence, "
    "tries, crashes, resends, expires_at, provider_ref, created_at, updated_at, sent_at"
)
WEEKS = 52 * 3


def fill(connection: Connection, finished: int, silent: int = 0, queued: int = 0) -> None:
    """Write so many finished, sent-without-report, and queued messages, mixed over three years.

    Nine in ten of the finished were delivered; each of 1,000 recipients got the same number; of
    every 100 messages one, never delivered, went by the second configuration.
    """
    total = finished + silent + queued
    status = (
        f"CASE WHEN n % {total} < {queued} THEN 'queued' WHEN n % {total} < {queued + silent} THEN "
        "'sent' WHEN n % 10 = 3 THEN 'undelivered' ELSE 'delivered' END"
    )
    postgresql = connection.dialect.name == "postgresql"
    age = f"({total} - i) * {WEEKS * 7 * 86400.0 / total}"
    then = (
        f"now() - make_interval(secs => {age})"
        if postgresql
        else f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || ({age}) || ' seconds')"
    )
    series = (
        f"generate_series(1, {total}) AS i"
        if postgresql
        else f"(WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {total})"
        " SELECT i FROM c)"
    )
    numbers = f"SELECT i, (i * CAST(7919 AS bigint)) % {total} AS n FROM {series}"
    far = (
        "now() + interval '1 day'"
        if postgresql
        else "strftime('%Y-%m-%d %H:%M:%f000', 'now', '1 day')"
    )
    word = "md5(i::text)" if postgresql else "printf('%032d', i)"
    connection.execute(
        text(
            f"INSERT INTO communication_message ({COLUMNS}) SELECT {word}, 'sms', 'out', s,"
            " '+9199000' || CAST(10000 + n % 1000 AS varchar(5)), 'Hello',"
            " CASE WHEN n % 100 = 13 THEN 2 ELSE 1 END, 5, CASE s WHEN 'queued' THEN t"
            f" WHEN 'sent' THEN {far} END, 1, 1, 0, 0, {far}, 'ref-' || i, t, t, t"
            f" FROM (SELECT i, n, {status} AS s, {then} AS t FROM ({numbers}) AS numbers) AS rows"
        )
    )


def settle(connection: Connection) -> None:
    """Let the database learn what its tables hold, as its own upkeep does in time."""
    connection.execute(text("ANALYZE communication_message"))
