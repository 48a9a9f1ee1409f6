"""Every state of one message is explored; planted bugs are found.

The databases do what the model says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, insert, select, text
from sqlalchemy.engine import Connection

from flask_communication.configs.state import state_of
from flask_communication.delivery import actions, outbox, outcomes, reports
from flask_communication.delivery.outcomes import Dispatch
from flask_communication.delivery.reports import ReportRow
from flask_communication.delivery.transitions import Dismissal, Settlement, Start, Stranded
from flask_communication.sms.channel import SMSChannel
from flask_communication.storage.dialect import dialect_of
from flask_communication.storage.models import Attempt, Config, Message, status
from tests.support import explorer
from tests.support.apps import MakeApp
from tests.support.explorer import (
    CLOSED,
    LATER,
    NEVER,
    NOW,
    TRUE,
    UNTRIED,
    Explorer,
    Rules,
    Step,
    World,
    Wrong,
    mutate,
)

# Kind of provider, a person's moves, workers, and whether workers keep to their lease.
SCENES = {
    "plain, a busy person": Explorer(False, patience=2, workers=1),
    "idempotent, a busy person": Explorer(True, patience=1, workers=1),
    "idempotent": Explorer(True),
    "idempotent, with a fallback": Explorer(True, fallback=True, workers=1, patience=1),
    "plain, with a fallback": Explorer(False, fallback=True),
    "idempotent, workers stopped in mid-call": Explorer(True, punctual=False),
    "plain": Explorer(False, patience=1),
    "plain, workers stopped in mid-call": Explorer(False, patience=1, punctual=False),
}


@cache
def worlds(name: str) -> Collection[World]:
    """Return every state that a scene can come to."""
    return explorer.explore(SCENES[name]).keys()


@pytest.mark.parametrize("name", SCENES)
def test_no_order_of_events_loses_doubles_or_strands_a_message(name: str) -> None:
    found = worlds(name)
    print(f"{name}: {len(found)} states")
    assert len(found) > 1000
    seen = {world.status for world in found}
    assert seen >= status.STATUSES - {status.RECEIVED, status.FAILED, status.CANCELLED}


def naive_retry(dispatch: Dispatch, result: Any, elapsed: float) -> Settlement:
    """Try again whatever is not known to have arrived."""
    settled = outcomes.settlement(dispatch, result, elapsed)
    is_unknown = settled.status == status.UNKNOWN
    return replace(settled, status=status.QUEUED, delay=5.0) if is_unknown else settled


def naive_rescue(message: Stranded, route: Any) -> Settlement:
    """Send again what a dead worker was sending."""
    return replace(outcomes.stranding(message, route), status=status.QUEUED, delay=0.0)


def careless_dismissal(dispatch: Dispatch) -> Dismissal | None:
    """Repeat what is in doubt, however late."""
    found = outcomes.dismissal(dispatch)
    return None if found and found.status == status.UNKNOWN else found


def unfenced(name: str) -> dict[str, status.Move]:
    return {**status.MOVES, name: replace(status.MOVES[name], fenced=False)}


NO_LATE_TRUTH = {**status.MOVES, "late_truth": status.Move(frozenset(), status.SENT)}
MUTANTS: dict[str, tuple[Rules, str]] = {
    "naive retry of unknown": (
        mutate(settlement=naive_retry),
        "a key rang twice|it rang, and is shown as",
    ),
    "naive rescue": (mutate(stranding=naive_rescue), "a key rang twice|it rang, and is shown as"),
    "settle without fence": (mutate(moves=unfenced("accept")), "rang twice|forgotten|shown as"),
    "late truth dropped": (mutate(moves=NO_LATE_TRUTH), "it was accepted, and that is forgotten"),
    "non-monotone reports": (mutate(applies=lambda _said, _current: True), "went back to"),
    "checkpoint by cursor": (mutate(leased=NEVER), "queued for ever"),
    "start without fence": (mutate(moves=unfenced("start")), "rang twice|forgotten|shown as"),
    "repeat outside of the window": (mutate(dismissal=careless_dismissal), "a key rang twice"),
    "careless retry by a person": (
        mutate(besides=lambda _move, _world: True),
        "careful retry|shown as",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    rules, wrong = MUTANTS[name]
    with pytest.raises(Wrong, match=wrong):
        explore_all(rules)


def explore_all(rules: Rules) -> None:
    for scene in SCENES.values():
        explorer.explore(replace(scene, rules=rules))


# --- The model and the databases
# ---------------------------------------------------------------------

# A world, and something that happens in it.
Case = tuple[World, Step]
LEASE = 3600.0


def cases() -> dict[str, dict[Any, Case]]:
    """Return, for each kind of step, every different row it can meet, with what it is told."""
    found: dict[str, dict[Any, Case]] = {}
    for name in ("plain, a busy person", "idempotent, a busy person", "idempotent"):
        for world in worlds(name):
            # What a statement sees: two that look the same to it are one case.
            row = world._replace(workers=(), rang=(), told=False, patience=1)
            for step in SCENES[name].raw(world):
                found.setdefault(step.name, {}).setdefault(_seen(row, step), (world, step))
            found.setdefault("idle", {}).setdefault(row, (world, Step("none", None, world)))
    return found


def _seen(row: World, step: Step) -> Any:
    if step.name in ("settle", "dismiss"):
        hold, verdict = step.about
        more = (getattr(verdict, name, None) for name in ("state", "repeat_for"))
        return row, hold.fence, verdict.status, *more
    if step.name in ("start", "rescue"):
        return row, step.about.fence if step.name == "start" else None
    return row, str(step.about)


@pytest.fixture(scope="module")
def met() -> dict[str, dict[Any, Case]]:
    return cases()


class Stage:
    """A database transaction with one row for each case; never committed."""

    def __init__(self, connection: Connection, worlds: list[World]) -> None:
        self.connection = connection
        now = connection.execute(text(f"SELECT {dialect_of(connection).now}")).scalar()
        self.now = datetime.fromisoformat(str(now))
        self.now = self.now.replace(tzinfo=UTC) if self.now.tzinfo is None else self.now
        connection.execute(delete(Attempt))
        connection.execute(delete(Message))
        if connection.execute(select(Config.id).where(Config.id == 1)).first() is None:
            connection.execute(
                insert(Config).values(id=1, type="sms", created_at=self.now, updated_at=self.now)
            )
        connection.execute(
            insert(Message), [self._row(n, world) for n, world in enumerate(worlds, 1)]
        )
        attempts = [one for n, world in enumerate(worlds, 1) for one in self._attempts(n, world)]
        if attempts:
            connection.execute(insert(Attempt), attempts)

    def _in(self, seconds: float | None) -> datetime | None:
        return None if seconds is None else self.now + timedelta(seconds=seconds)

    def _row(self, number: int, world: World) -> dict[str, Any]:
        age = explorer.AGE[world.age]
        share = explorer.WINDOW * outcomes.WINDOW_SHARE
        return {
            "id": number,
            "uuid": f"uuid-{number}",
            "channel": "sms",
            "status": world.status,
            "destination": "+919999911111",
            "body": "Hello",
            "config_id": 1,
            "due_at": self._in({NEVER: None, LATER: LEASE, NOW: -LEASE}[world.due]),
            "fence": world.fence,
            "crashes": world.crashes,
            "resends": world.key,
            "first_tried_at": self._in(None if age is None else -age),
            "repeat_until": self._in(share - (age or 0) if world.doubt else None),
            "expires_at": self._in(-LEASE / 2 if world.stale else 2 * LEASE),
            "provider_ref": f"ref-{number}" if world.ref else None,
            "created_at": self.now,
            "updated_at": self.now,
        }

    def _attempts(self, number: int, world: World) -> Iterator[dict[str, Any]]:
        for fence, key, state in world.attempts:
            yield {
                "message_id": number,
                "fence": fence,
                "config_id": 1,
                "key": f"key-{key}",
                "state": state,
                "started_at": self.now,
            }

    def worlds(self) -> Iterator[tuple[Any, ...]]:
        """Yield what has become of each row, as :func:`expected` says it."""
        states: dict[int, list[tuple[int, str]]] = {}
        for one in self.connection.execute(
            select(Attempt.message_id, Attempt.fence, Attempt.state)
        ):
            states.setdefault(one.message_id, []).append((one.fence, one.state))
        rows = self.connection.execute(select(*Message.__table__.columns).order_by(Message.id))
        soon = self.now + timedelta(seconds=30)
        for row in rows:
            yield (
                row.status,
                row.fence,
                NEVER if row.due_at is None else LATER if row.due_at > soon else NOW,
                row.crashes,
                row.resends,
                row.first_tried_at is not None,
                row.repeat_until is not None,
                row.expires_at < self.now,
                row.provider_ref is not None,
                sorted(states.get(row.id, [])),
            )


def expected(world: World) -> tuple[Any, ...]:
    """Say what a row should look like."""
    attempts = sorted((fence, state) for fence, _, state in world.attempts)
    return (*world[:5], world.age != UNTRIED, world.doubt, world.stale, world.ref, attempts)


def told(number: int, case: Case) -> Any:
    """Return what a statement is told of one case."""
    world, (name, about, _) = case
    if name == "start":
        return Start(number, about.fence, 1, f"key-{about.key}")
    if name in ("settle", "dismiss"):
        return replace(about[1], id=number, fence=about[0].fence)
    if name == "rescue":
        return replace(about, id=number, fence=world.fence)
    delay = None if about in status.FINAL else 60.0
    return ReportRow(1, f"ref-{number}", about, status.RANK[about], delay, None, None)


STATEMENTS: dict[str, Callable[[Connection, list[Any]], object]] = {
    "start": outbox.start,
    "settle": outbox.settle,
    "dismiss": outbox.dismiss,
    "rescue": outbox.rescue,
    "report": reports._report,
}


def compare(stage: Stage, given: list[Case]) -> None:
    """Fail if a row is not as the model says that it should be by now."""
    for (world, step), row in zip(given, stage.worlds(), strict=True):
        assert row == expected(step.after), f"{step.name} {step.about} of {world}"


@pytest.fixture
def writing(make_app: MakeApp, upgraded_url: str) -> Iterator[Connection]:
    """Open a transaction as the workers do, and roll it back."""
    engine = state_of(make_app(upgraded_url)).database.engine
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def staged(connection: Connection, given: list[Case]) -> Stage:
    print(f"{len(given)} different cases")
    return Stage(connection, [world for world, _ in given])


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_does_what_the_model_says(
    writing: Connection, met: dict[str, dict[Any, Case]], name: str
) -> None:
    given = list(met[name].values())
    stage = staged(writing, given)
    STATEMENTS[name](writing, [told(number, case) for number, case in enumerate(given, 1)])
    compare(stage, given)


def test_a_claim_takes_what_the_model_says_and_tells_its_age(
    writing: Connection, met: dict[str, dict[Any, Case]]
) -> None:
    idle = [world for world, _ in met["idle"].values()]
    taken = {n: world for n, world in enumerate(idle, 1) if explorer.claimable(world)}
    given = [
        (w, Step("claim", n, w._replace(fence=w.fence + 1, due=LATER) if n in taken else w))
        for n, w in enumerate(idle, 1)
    ]
    stage = staged(writing, given)
    claimed = {row.id: row for row in outbox.claim(writing, len(given))}
    assert set(claimed) == set(taken)
    for number, world in taken.items():
        row = claimed[number]
        assert (row.fence, row.resends) == (world.fence + 1, world.key)
        assert (row.age is None, bool(row.stale)) == (world.age == UNTRIED, world.stale)
        assert bool(row.in_doubt) == world.doubt
        assert bool(row.closed) == (world.doubt and world.age >= CLOSED)
    compare(stage, given)


def test_nothing_but_a_lease_that_ran_out_in_mid_call_is_rescued(
    writing: Connection, met: dict[str, dict[Any, Case]]
) -> None:
    given = [one for one in met["idle"].values() if one[0].due != NOW or one[0].status != "sending"]
    stage = staged(writing, given)
    verdict = outcomes.stranding(explorer.row(given[0][0]), None)
    outbox.rescue(
        writing, [replace(verdict, id=n, fence=w.fence) for n, (w, _) in enumerate(given, 1)]
    )
    compare(stage, given)


def test_a_person_can_do_what_the_model_says(
    writing: Connection, met: dict[str, dict[Any, Case]]
) -> None:
    # These go one by one; what they look at is the status, the doubt and the attempts.
    different = {
        (w.status, w.doubt, w.attempts, step.about): (w, step) for w, step in met["person"].values()
    }
    given = list(different.values())
    stage = staged(writing, given)
    for number, (_, step) in enumerate(given, 1):
        actions._move(writing, step.about, f"uuid-{number}", SMSChannel())
    compare(stage, given)


# --- Two claims at once
# ------------------------------------------------------------------------------

Claim = Callable[[Connection], list[int]]


def both(engine: Engine, claim: Claim) -> list[int]:
    """Let a second worker claim while the first has not committed its claim.

    Return what both got.
    """
    got: list[int] = []

    def second() -> None:
        with engine.begin() as connection:
            got.extend(claim(connection))

    other = threading.Thread(target=second)
    with engine.begin() as connection:
        got.extend(claim(connection))
        other.start()
        other.join(0.5)  # it has its own rows by now, or waits for us
    other.join(30)
    return got


def filled(engine: Engine, count: int) -> None:
    with engine.begin() as connection:
        Stage(connection, [World()] * count)


def test_two_claims_at_once_never_take_the_same_message(
    make_app: MakeApp, upgraded_url: str
) -> None:
    engine = state_of(make_app(upgraded_url)).database.engine
    filled(engine, 20)
    got = both(engine, lambda connection: [row.id for row in outbox.claim(connection, 10)])
    assert sorted(got) == list(range(1, 21))


def select_then_update(connection: Connection) -> list[int]:
    """Claim as an ORM does by habit: look, then write."""
    ids = list(
        connection.execute(select(Message.id).where(Message.status == "queued").limit(10)).scalars()
    )
    connection.execute(
        text(
            "UPDATE communication_message SET fence = fence + 1 WHERE id IN "
            f"({', '.join(map(str, ids))})"
        )
    )
    return ids


def without_skip_locked(connection: Connection) -> list[int]:
    """Claim by our own statement, but for its lock."""
    statement = outbox._claim(replace(dialect_of(connection), skip_locked=""), (0, 5, 9))
    return [row.id for row in connection.execute(statement, {"limit": 10, "lease": 60.0})]


def test_a_claim_that_selects_first_is_found_on_both_databases(upgraded_url: str) -> None:
    # The host's own engine, as SQLAlchemy makes it: on SQLite it begins too late.
    engine = create_engine(upgraded_url)
    filled(engine, 20)
    assert sorted(both(engine, select_then_update)) != list(range(1, 21))
    engine.dispose()


def test_a_claim_without_skip_locked_is_found_on_postgresql(upgraded_postgresql_url: str) -> None:
    engine = create_engine(upgraded_postgresql_url)
    filled(engine, 20)
    assert sorted(both(engine, without_skip_locked)) != list(range(1, 21))
    engine.dispose()


def test_the_true_rules_are_the_packages_own() -> None:
    assert TRUE.moves is status.MOVES
    assert TRUE.applies is status.applies
    assert (TRUE.settlement, TRUE.stranding, TRUE.dismissal) == (
        outcomes.settlement,
        outcomes.stranding,
        outcomes.dismissal,
    )
