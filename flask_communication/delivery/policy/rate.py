"""The rate of a configuration: a token bucket shared by all workers, and a queue behind it."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...storage.dialect import dialect_of

# A third of a second's worth may go at once (and one message always may).
BURST = 1 / 3
# Messages over the rate are lined up behind each other so far ahead; then they are looked at again,
# so that a rate which was raised meanwhile takes effect.
LINE_UP_FOR = 300.0
# One a day. A rate that was stored and is slower would be beyond what a database calls a time.
SLOWEST = 1 / 86400


def take(
    connection: Connection, config_id: int, rate: float, wanted: int
) -> tuple[int, list[float]]:
    """Return how many of ``wanted`` messages may go now, and the delays of the others in seconds.

    ``rate`` is messages a second. The bucket is kept as the moment at which it will be full (the
    "generic cell rate algorithm" of ITU-T I.371): one column, and no clock but the database's.
    """
    rate, dialect = max(rate, SLOWEST), dialect_of(connection)
    connection.execute(
        text(
            "INSERT INTO communication_circuit (config_id, changed_at)"
            f" VALUES (:id, {dialect.now}) ON CONFLICT (config_id) DO NOTHING"
        ),
        {"id": config_id},
    )
    lock = "FOR UPDATE" if dialect.name == "postgresql" else ""
    row = connection.execute(
        text(
            f"SELECT 0 - {dialect.since('full_at')} AS to_full,"
            f" 0 - {dialect.since('queued_until')} "
            f"AS queue FROM communication_circuit WHERE config_id = :id {lock}"
        ),
        {"id": config_id},
    ).one()
    granted, to_full, delays = share(rate, wanted, row.to_full or 0.0, row.queue or 0.0)
    connection.execute(
        text(
            f"UPDATE communication_circuit SET full_at = {dialect.later(':to_full')},"
            f" queued_until = {dialect.later(':queue')} WHERE config_id = :id"
        ),
        {
            "id": config_id,
            "to_full": to_full,
            "queue": delays[-1] if delays else max(row.queue or 0.0, 0.0),
        },
    )
    return granted, delays


def share(rate: float, wanted: int, to_full: float, queue: float) -> tuple[int, float, list[float]]:
    """Return how many may go now, the seconds until the bucket is full, and the other delays."""
    size = max(1.0, rate * BURST)
    tokens = size - max(0.0, to_full) * rate
    # A small margin, so that what is due exactly then is not put off once more.
    granted = max(0, min(wanted, int(tokens + 1e-6)))
    filled = (size - tokens + granted) / rate
    first = max(queue, (1.0 - (tokens - granted)) / rate)
    delays = [min(first + place / rate, LINE_UP_FOR) for place in range(wanted - granted)]
    return granted, filled, delays
