"""Limits: how much may be sent, by counters in the database that all workers share.

A worker counts in the transaction of its claim, under one lock: it reads the counters that no other
can change meanwhile, and writes what it let through before the lock ends with the transaction. So
no number of workers lets more pass than one would. Each message is counted once; ``admitted_at``
says it was.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection

from ...configs.settings import Settings
from ...storage.dialect import Dialect, as_rows, dialect_of
from ...storage.models.operation import hash_recipient
from ..transitions import Claim

DAY = 86400
HOUR = 3600
# The mean that COMMUNICATION_PREFIX_GROWTH multiplies is that of so many days.
USUAL_DAYS = 7
# "+", the country code, and the network or the area: a pumped range rarely spans more.
PREFIX_LENGTH = 7

# Any number that no other program in this database uses for pg_advisory_xact_lock.
_LOCK = 0x636F6D6D6C696D
# Written once an hour by the worker that drops the counters that are over.
_SWEPT = "swept"
_COUNTERS = {"scope": "text", "first": "bigint", "last": "bigint"}
_ADDING = {
    "scope": "text",
    "period": "bigint",
    "added": "int",
    "alerted": "boolean",
    "lasts": "double precision",
}


@dataclass
class Count:
    """What was counted in the present period, in those before, and the share of it that is over."""

    now: int = 0
    before: int = 0
    elapsed: float = 0.0


class Limit:
    """One limit; ``says`` tells a person what was exceeded.

    It looks ``back`` periods of ``seconds`` before the present one.
    """

    setting: str
    name: str
    says: str
    seconds: int = DAY
    back: int = 0

    def counted(self, claim: Claim) -> str | None:
        """Return what of a message is counted, None for nothing."""
        return claim.channel

    def allows(self, claim: Claim, count: Count) -> bool:
        """Tell whether one more message may pass."""
        raise NotImplementedError(f"{self.name} allows nothing")

    def scope(self, claim: Claim) -> str | None:
        """Return the name of the counter of this message, if it has one."""
        key = self.counted(claim)
        return None if key is None else f"{claim.channel}:{self.name}:{key}"

    def alert(self, claim: Claim) -> str:
        """Return the name of the counter of what was held back."""
        return f"{claim.channel}:{self.name}"


class AllowedCountries(Limit):
    """Phone numbers of these countries only."""

    setting = "COMMUNICATION_ALLOWED_COUNTRIES"
    name = "countries"
    says = "does not list this destination"

    def __init__(self, allowed: Sequence[str], by_number: Container[str]) -> None:
        self._by_number = by_number
        self._prefixes = tuple(one for one in allowed if one.startswith("+"))
        self._regions = frozenset(allowed) - frozenset(self._prefixes)

    def counted(self, claim: Claim) -> str | None:
        """Count nothing: the destination alone decides."""
        return None

    def allows(self, claim: Claim, count: Count) -> bool:
        """Tell whether the destination belongs to an allowed country or prefix."""
        if claim.channel not in self._by_number or claim.destination.startswith(self._prefixes):
            return True
        return bool(self._regions) and _region(claim.destination) in self._regions


def _region(number: str) -> str | None:
    """Return the country of a number; None for none, or a premium-rate number."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.number_type(parsed) == phonenumbers.PhoneNumberType.PREMIUM_RATE:
        return None
    region: str | None = phonenumbers.region_code_for_number(parsed)
    return region


class PerRecipient(Limit):
    """At most so many messages to one recipient in so many seconds, by a sliding window."""

    setting = "COMMUNICATION_LIMIT_PER_RECIPIENT"
    back = 1

    def __init__(self, most: int, seconds: int) -> None:
        self._most = most
        self.seconds = seconds
        self.name = f"recipient/{seconds}"
        self.says = f"allows a recipient {most} messages in {seconds} s"

    def counted(self, claim: Claim) -> str | None:
        """Count by the recipient, of whom only a hash is kept."""
        return hash_recipient(claim.destination)

    def allows(self, claim: Claim, count: Count) -> bool:
        """Estimate the sliding window: what came before is taken as evenly spread."""
        return count.now + count.before * (1 - count.elapsed) + 1 <= self._most


class PrefixGrowth(Limit):
    """At most so many times the mean of the last days to one prefix of numbers."""

    setting = "COMMUNICATION_PREFIX_GROWTH"
    name = "prefix"
    back = USUAL_DAYS

    def __init__(self, factor: float, floor: int, by_number: Container[str]) -> None:
        self._factor = factor
        self._floor = floor
        self._by_number = by_number
        mean = f"{factor:g} times its mean of the last {USUAL_DAYS} days"
        self.says = f"allows a prefix {mean}, or {floor} a day"

    def counted(self, claim: Claim) -> str | None:
        """Count by the first digits of a number."""
        is_number = claim.channel in self._by_number
        return claim.destination[:PREFIX_LENGTH] if is_number else None

    def allows(self, claim: Claim, count: Count) -> bool:
        """Tell whether the prefix stays below its growth."""
        return count.now + 1 <= max(self._floor, self._factor * count.before / USUAL_DAYS)


class PerDay(Limit):
    """At most so many messages of a channel on a day."""

    setting = "COMMUNICATION_LIMIT_PER_DAY"
    name = "day"
    says = "allows no more messages on this UTC day"

    def __init__(self, most: Mapping[str, int]) -> None:
        self._most = most

    def counted(self, claim: Claim) -> str | None:
        """Count all messages of the channel together."""
        return "all"

    def allows(self, claim: Claim, count: Count) -> bool:
        """Tell whether the day's number is not reached yet."""
        return claim.channel not in self._most or count.now + 1 <= self._most[claim.channel]


@dataclass(frozen=True)
class Hold:
    """A message that a limit holds back; ``first`` in this period, and so announced."""

    claim: Claim
    limit: Limit
    first: bool

    @property
    def reason(self) -> str:
        """The limit and what was exceeded, for a person."""
        return f"{self.limit.setting} {self.limit.says}"


def limits_of(settings: Settings, by_number: Container[str]) -> list[Limit]:
    """Return the limits that are set, in the order in which they are checked."""
    found: list[Limit] = []
    if settings.allowed_countries:
        found.append(AllowedCountries(settings.allowed_countries, by_number))
    found += [PerRecipient(count, seconds) for count, seconds in settings.limit_per_recipient]
    if settings.prefix_growth is not None:
        growth = settings.prefix_growth
        found.append(PrefixGrowth(growth.factor, growth.floor, by_number))
    if settings.limit_per_day:
        found.append(PerDay(settings.limit_per_day))
    return found


def check(
    connection: Connection, settings: Settings, claims: Sequence[Claim], by_number: Container[str]
) -> list[Hold]:
    """Count claimed messages that were never counted, and return those that exceed a limit.

    The others are marked as admitted. This is the transaction of their claim. Without a limit, and
    with nothing to count, no SQL is run. ``by_number`` names the channels whose recipients are
    phone numbers.
    """
    limits = limits_of(settings, by_number)
    fresh = [claim for claim in claims if _is_new(claim)] if limits else []
    if not fresh:
        return []
    book = _Book(connection, limits, fresh, _lock_and_read_clock(connection))
    holds = [hold for claim in fresh if (hold := book.hold(claim)) is not None]
    book.write()
    held = {hold.claim.id for hold in holds}
    _admit(connection, [claim.id for claim in fresh if claim.id not in held])
    return holds


def foresee(
    connection: Connection, settings: Settings, claim: Claim, by_number: Container[str]
) -> Limit | None:
    """Return the limit that would hold a message back now.

    It is not counted, and takes no lock.
    """
    limits = limits_of(settings, by_number)
    hold = _Book(connection, limits, [claim], _clock(connection)).hold(claim) if limits else None
    return None if hold is None else hold.limit


def _is_new(claim: Claim) -> bool:
    # A message in doubt may have arrived already, and one that has expired is not sent at all.
    return claim.admitted_at is None and not (claim.in_doubt or claim.stale)


class _Book:
    """The counters that a batch needs, read under the lock, and what is to be added to them."""

    def __init__(
        self,
        connection: Connection,
        limits: Sequence[Limit],
        claims: Iterable[Claim],
        epoch: float,
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._epoch = epoch
        self._wanted: dict[str, Limit] = {}
        for claim in claims:
            for limit in limits:
                self._wanted[limit.alert(claim)] = limit
                scope = limit.scope(claim)
                if scope is not None:
                    self._wanted[scope] = limit
        self._counts = self._read()
        self._added: dict[str, int] = {}
        self._alerts: set[str] = set()

    def _read(self) -> dict[str, Count]:
        asked = [
            {"scope": scope, "first": self._period(limit) - limit.back, "last": self._period(limit)}
            for scope, limit in self._wanted.items()
        ]
        hour = int(self._epoch // HOUR)
        asked.append({"scope": _SWEPT, "first": hour, "last": hour})
        found = self._connection.execute(
            _read(dialect_of(self._connection)), {"rows": as_rows(asked)}
        )
        return {row.scope: Count(row.now, row.before) for row in found}

    def _period(self, limit: Limit) -> int:
        return int(self._epoch // limit.seconds)

    def _count(self, scope: str, limit: Limit) -> Count:
        count = self._counts.setdefault(scope, Count())
        count.elapsed = self._epoch / limit.seconds % 1
        return count

    def hold(self, claim: Claim) -> Hold | None:
        """Count a message that may pass, or return what holds it back."""
        scopes = [(limit, limit.scope(claim)) for limit in self._limits]
        for limit, scope in scopes:
            if not limit.allows(claim, self._count(scope, limit) if scope else Count()):
                alert = limit.alert(claim)
                first = not self._counts.get(alert, Count()).now
                self._alerts.add(alert)
                self._add(alert)
                return Hold(claim, limit, first)
        for _, scope in scopes:
            if scope is not None:
                self._add(scope)
        return None

    def _add(self, scope: str) -> None:
        self._counts.setdefault(scope, Count()).now += 1
        self._added[scope] = self._added.get(scope, 0) + 1

    def write(self) -> None:
        """Add to the counters; once an hour, drop those that are over."""
        rows = [self._row(scope, added) for scope, added in sorted(self._added.items())]
        if not self._counts.get(_SWEPT, Count()).now:
            self._connection.execute(_sweep(dialect_of(self._connection)))
            hour = int(self._epoch // HOUR)
            rows.append(
                {"scope": _SWEPT, "period": hour, "added": 1, "alerted": False, "lasts": HOUR}
            )
        if rows:
            self._connection.execute(_add(dialect_of(self._connection)), {"rows": as_rows(rows)})

    def _row(self, scope: str, added: int) -> dict[str, Any]:
        limit = self._wanted[scope]
        return {
            "scope": scope,
            "period": self._period(limit),
            "added": added,
            "alerted": scope in self._alerts,
            "lasts": float(limit.seconds * (limit.back + 1)),
        }


def _lock_and_read_clock(connection: Connection) -> float:
    """Wait for the lock, and only then read the clock: no counter sees time go backwards."""
    dialect = dialect_of(connection)
    # On SQLite BEGIN IMMEDIATE has locked everything already.
    if dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    return _clock(connection)


def _clock(connection: Connection) -> float:
    dialect = dialect_of(connection)
    epoch = dialect.since("'1970-01-01 00:00:00+00:00'")
    return float(connection.execute(text(f"SELECT {epoch}")).scalar_one())


@cache
def _read(dialect: Dialect) -> TextClause:
    return text(
        "SELECT u.scope, sum(CASE WHEN u.period = r.last THEN u.count ELSE 0 END) AS now,"
        " sum(CASE WHEN u.period < r.last THEN u.count ELSE 0 END) AS before"
        f" FROM {dialect.rows(_COUNTERS)} AS r JOIN communication_usage AS u"
        " ON u.scope = r.scope AND u.period BETWEEN r.first AND r.last GROUP BY u.scope"
    )


@cache
def _add(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_usage (scope, period, count, alerted, expires_at)"
        f" SELECT r.scope, r.period, r.added, r.alerted, {dialect.later('r.lasts')}"
        f" FROM {dialect.rows(_ADDING)} AS r WHERE true ON CONFLICT (scope, period)"
        " DO UPDATE SET count = communication_usage.count + excluded.count"
    )


@cache
def _sweep(dialect: Dialect) -> TextClause:
    return text(f"DELETE FROM communication_usage WHERE expires_at < {dialect.now}")


def _admit(connection: Connection, ids: Sequence[int]) -> None:
    if ids:
        rows = as_rows([{"id": one} for one in ids])
        connection.execute(_mark(dialect_of(connection)), {"rows": rows})


@cache
def _mark(dialect: Dialect) -> TextClause:
    return text(
        f"UPDATE communication_message AS m SET admitted_at = {dialect.now}"
        f" FROM {dialect.rows({'id': 'bigint'})} AS r WHERE m.id = r.id"
    )
