"""One message, two workers, one provider, time and a person: every state that they can bring about.

Moves, guards and verdicts are the package's own: ``status.MOVES``, ``status.applies`` and
``verdicts``. What the statements of the outbox do with them is said here once more, in Python;
tests/test_state_machine.py runs every step on real databases too, and compares. Another
:class:`Rules` is another program: a mutant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from flask_communication.configs.routes import Route
from flask_communication.delivery import outcomes
from flask_communication.delivery.outcomes import Dispatch
from flask_communication.delivery.transitions import Claim, Dismissal, Settlement, Stranded
from flask_communication.errors import Denied, NotSent, OutcomeUnknown, Refused
from flask_communication.providers.base import Accepted, Provider
from flask_communication.storage.models import status
from flask_communication.storage.models.status import FINAL, MOVES, RANK, REPORTED, Move

# due_at: NULL, in the future, past.
NEVER, LATER, NOW = 0, 1, 2
# The window of an idempotent provider, and the message's age: not tried yet; inside the share of it
# that we use; beyond our share; so late that the provider has forgotten.
WINDOW = 1000.0
UNTRIED, INSIDE, CLOSED, FORGOTTEN = -1, 0, 1, 2
AGE: dict[int, float | None] = {UNTRIED: None, INSIDE: 1.0, CLOSED: 850.0, FORGOTTEN: 1100.0}

AGAIN = frozenset({"retry", "force_retry", "resolve_resend"})
PERSONAL = AGAIN | {"cancel", "resolve_sent", "resolve_drop", "release"}

CLAIMED, STARTED, ANSWERED = "claimed", "started", "answered"
RESULTS: dict[str, Any] = {
    "accepted": Accepted("ref"),
    "unknown": OutcomeUnknown("?"),
    "not_sent": NotSent("?"),
    "refused": Refused("no", http_status=422),
    "unauthorised": Denied("no", http_status=401),
}
# What a call may end with: the result, and whether the provider got it.
CALLS = [
    ("accepted", True),
    ("unknown", True),
    ("unknown", False),
    ("not_sent", False),
    ("refused", False),
    ("unauthorised", False),
]


class Hold(NamedTuple):
    """What one worker remembers of the message it took up."""

    fence: int
    stage: str
    key: int
    age: int
    doubt: bool
    stale: bool
    result: str = ""


class World(NamedTuple):
    """The row, its attempts, both workers' memories, and what has really happened."""

    status: str = status.QUEUED
    fence: int = 0
    due: int = NOW
    crashes: int = 0
    key: int = 0
    age: int = UNTRIED
    doubt: bool = False
    stale: bool = False
    ref: bool = False
    # Of each attempt: fence, key and state.
    attempts: frozenset[tuple[int, int, str]] = frozenset()
    workers: tuple[Hold | None, ...] = (None, None)
    # How often each key rang; whether an acceptance was written down since a person last sent it
    # again.
    rang: tuple[int, ...] = (0,)
    told: bool = False
    # A person's moves that are left.
    patience: int = 0


def besides(move: str, world: World) -> bool:
    """Say what a person's move demands besides the status, as decisions._BESIDES does in SQL."""
    if move == "cancel":
        return not world.doubt
    if move == "retry":
        return not any(
            state in ("open", "unknown") and not _answered(world.attempts, fence, key)
            for fence, key, state in world.attempts
        )
    return True


def _answered(attempts: Iterable[tuple[int, int, str]], fence: int, key: int) -> bool:
    """Tell whether the provider told later what became of this key, or ever that it has it."""
    return any(
        k == key and (s == "accepted" or (s == "rejected" and f > fence)) for f, k, s in attempts
    )


def claimable(world: World) -> bool:
    """Say what a claim takes up, as outbox._claim does in SQL."""
    return world.status == status.QUEUED and world.due == NOW


def put_off(world: World) -> int:
    """Say when a message is due that is put off: never beyond its expiry."""
    return NOW if world.stale else LATER


@dataclass(frozen=True)
class Rules:
    """The program under test."""

    moves: Mapping[str, Move] = field(default_factory=lambda: MOVES)
    applies: Callable[[str, str], bool] = status.applies
    settlement: Callable[..., Settlement] = outcomes.settlement
    stranding: Callable[..., Settlement] = outcomes.stranding
    dismissal: Callable[..., Dismissal | None] = outcomes.dismissal
    besides: Callable[[str, World], bool] = besides
    claimable: Callable[[World], bool] = claimable
    # The due_at that a claim leaves behind: the end of its lease.
    leased: int = LATER

    def may(self, move: str, world: World, fence: int | None = None) -> bool:
        """Tell whether a row lets a move happen, asked by the holder of ``fence``."""
        one = self.moves[move]
        return world.status in one.sources and (not one.fenced or fence == world.fence)


TRUE = Rules()


class Step(NamedTuple):
    """Something that happens: its name, what it is about, and the world after it."""

    name: str
    about: Any
    after: World


@dataclass
class Explorer:
    """All steps from a world, under these rules, at this kind of provider.

    ``punctual`` workers never call a provider after their lease: what delivery checks before each
    call. Others may be stopped between that check and the call, for as long as you like. A person
    makes ``patience`` moves at most. With ``fallback`` there is another way for what certainly did
    not leave.
    """

    idempotent: bool
    rules: Rules = TRUE
    punctual: bool = True
    patience: int = 0
    workers: int = 2
    fallback: bool = False

    def __post_init__(self) -> None:
        self.provider = Provider()
        self.provider.idempotency_window = WINDOW if self.idempotent else 0
        self.route = Route(1, self.provider)
        self.finished: dict[World, World | None] = {}
        self.closed_route = Route(1, self.provider, blocked="configuration 1 is disabled")

    def dispatch(self, hold: Hold, *, is_closed: bool = False) -> Dispatch:
        """Make what a worker holds of what the claim's row said."""
        one = dispatch(hold, self.closed_route if is_closed else self.route)
        return replace(one, family=2, others=1) if self.fallback and not hold.doubt else one

    def steps(self, world: World) -> Iterator[Step]:
        """Yield everything that can happen next."""
        for step in self.raw(world):
            yield step._replace(after=canonical(step.after))

    def raw(self, world: World) -> Iterator[Step]:
        """Yield the same, with worlds that are not simplified."""
        for number, hold in enumerate(world.workers):
            if hold is None:
                yield from self._claim(world, number)
                continue
            yield Step("kill", None, keep(world, number, None))
            yield from {CLAIMED: self._begin, STARTED: self._dial, ANSWERED: self._settle}[
                hold.stage
            ](world, number, hold)
        yield from self._rescue(world)
        yield from self._report(world)
        yield from _time(world)
        yield from self._person(world)

    def _claim(self, world: World, number: int) -> Iterator[Step]:
        if not self.rules.claimable(world):
            return
        hold = Hold(world.fence + 1, CLAIMED, world.key, world.age, world.doubt, world.stale)
        taken = world._replace(fence=world.fence + 1, due=self.rules.leased)
        yield Step("claim", None, keep(taken, number, hold))
        if world.age == UNTRIED and not world.doubt:
            yield Step("screen", status.HELD, taken._replace(status=status.HELD, due=NEVER))
        unwanted = outcomes.refusal(self.dispatch(hold).claim, "it is suppressed").status
        yield Step("screen", unwanted, taken._replace(status=unwanted, due=NEVER))

    def _begin(self, world: World, number: int, hold: Hold) -> Iterator[Step]:
        idle = keep(world, number, None)
        verdict = self.rules.dismissal(self.dispatch(hold))
        if verdict is None:
            yield self._start(world, number, hold)
            for other in (
                self.rules.dismissal(self.dispatch(hold, is_closed=True)),
                Dismissal.returning(self.dispatch(hold).claim),
            ):
                if other is not None:
                    yield Step("dismiss", (hold, other), self._dismissed(idle, hold, other))
        else:
            yield Step("dismiss", (hold, verdict), self._dismissed(idle, hold, verdict))

    def _dismissed(self, world: World, hold: Hold, verdict: Any) -> World:
        if not self.rules.may("expire", world, hold.fence):
            return world
        due = NEVER if verdict.status != status.QUEUED else put_off(world) if verdict.delay else NOW
        return world._replace(status=verdict.status, due=due)

    def _start(self, world: World, number: int, hold: Hold) -> Step:
        if not self.rules.may("start", world, hold.fence):
            return Step("start", hold, keep(world, number, None))
        started = world._replace(
            status=status.SENDING,
            due=LATER,
            age=max(world.age, INSIDE),
            attempts=world.attempts | {(hold.fence, hold.key, "open")},
        )
        return Step("start", hold, keep(started, number, hold._replace(stage=STARTED, stale=False)))

    def _dial(self, world: World, number: int, hold: Hold) -> Iterator[Step]:
        if self._is_too_late(world, hold):
            late = hold._replace(stage=ANSWERED, result="not_sent")
            yield Step("too late", None, keep(world, number, late))
            return
        known = self.idempotent and world.rang[hold.key] > 0 and world.age < FORGOTTEN
        for result, arrives in CALLS:
            if result == "refused" and known:
                continue  # it answers what it answered before
            if result == "unauthorised" and not hold.doubt and not self.fallback:
                continue  # as good as refused
            rang = world.rang
            if arrives and not known:
                rang = (*rang[: hold.key], rang[hold.key] + 1, *rang[hold.key + 1 :])
            answered = hold._replace(stage=ANSWERED, result=result)
            yield Step("dial", (result, arrives), keep(world._replace(rang=rang), number, answered))

    def _is_too_late(self, world: World, hold: Hold) -> bool:
        # From the claim to the call there are at most two minutes, and the rest of the provider's
        # window beyond our share of it is longer.
        if hold.key == world.key and world.age > max(hold.age, INSIDE) + 1:
            return True
        return self.punctual and (hold.fence != world.fence or world.due == NOW)

    def _settle(self, world: World, number: int, hold: Hold) -> Iterator[Step]:
        elapsed = (AGE[world.age] or 0.0) - (AGE[hold.age] or 0.0) if hold.key == world.key else 0.0
        verdict = self.rules.settlement(self.dispatch(hold), RESULTS[hold.result], elapsed)
        after = self._settled(keep(world, number, None), hold, verdict)
        attempts = {a for a in after.attempts if a[0] != hold.fence}
        if len(attempts) < len(after.attempts):
            attempts.add((hold.fence, hold.key, verdict.state))
        accepted = verdict.state == status.ACCEPTED
        after = after._replace(attempts=frozenset(attempts), told=after.told or accepted)
        yield Step("settle", (hold, verdict), after)

    def _settled(self, world: World, hold: Hold, verdict: Any) -> World:
        ref = world.ref or verdict.ref is not None
        if self.rules.may("accept", world, hold.fence):
            again = verdict.status == status.QUEUED
            return world._replace(
                status=verdict.status,
                due=NEVER if verdict.delay is None else put_off(world) if again else LATER,
                doubt=again and (world.doubt or verdict.repeat_for is not None),
                ref=ref,
            )
        if verdict.state == status.ACCEPTED and self.rules.may("late_truth", world):
            return world._replace(
                status=status.SENT, fence=world.fence + 1, due=LATER, doubt=False, ref=ref
            )
        return world

    def _rescue(self, world: World) -> Iterator[Step]:
        if world.due != NOW or not self.rules.may("rescue_doubt", world):
            return
        verdict = self.rules.stranding(row(world), self.route)
        again = verdict.status == status.QUEUED
        attempts = {
            (fence, key, "unknown" if fence == world.fence and state == "open" else state)
            for fence, key, state in world.attempts
        }
        after = world._replace(
            status=verdict.status,
            fence=world.fence + 1,
            crashes=world.crashes + 1,
            due=NEVER if verdict.delay is None else NOW,
            doubt=again and (world.doubt or verdict.repeat_for is not None),
            attempts=frozenset(attempts),
        )
        yield Step("rescue", verdict, after)

    def _report(self, world: World) -> Iterator[Step]:
        """Say anything, any number of times, in any order, once the provider has given its id."""
        for said in sorted(REPORTED) if world.ref else ():
            after = world
            if self.rules.applies(said, world.status):
                after = world._replace(
                    status=said, doubt=False, due=NEVER if said in FINAL else LATER
                )
            yield Step("report", said, after)
        if world.status in (status.SENT, status.UNKNOWN) and world.due == NOW:
            for due in (LATER, NEVER):
                yield Step("ask", due, world._replace(due=due))

    def _person(self, world: World) -> Iterator[Step]:
        if world.status == status.QUEUED:
            yield Step("hurry", None, world._replace(due=NOW))
        for name in sorted(PERSONAL) if world.patience else ():
            after = world
            if self.rules.may(name, world) and self.rules.besides(name, world):
                after = moved(world, name, self.rules.moves[name])
            yield Step("person", name, after)


def moved(world: World, name: str, move: Move) -> World:
    """Make a person's move, as decisions._move_sql does."""
    after = world._replace(
        status=move.target,
        fence=world.fence + 1,
        due=NEVER,
        doubt=False,
        patience=world.patience - 1,
    )
    if name == "release":
        return after._replace(due=NOW, stale=False)
    if move.target != status.QUEUED:
        return after
    return after._replace(
        due=NOW,
        stale=False,
        crashes=0,
        key=world.key + 1,
        age=UNTRIED,
        rang=(*world.rang, 0),
        told=False,
    )


def _time(world: World) -> Iterator[Step]:
    if world.due == LATER:
        yield Step("time", "due", world._replace(due=NOW))
    if UNTRIED < world.age < FORGOTTEN:
        yield Step("time", "window", world._replace(age=world.age + 1))
    if not world.stale and world.status in (status.QUEUED, status.SENDING):
        yield Step("time", "expiry", world._replace(stale=True))


def keep(world: World, number: int, hold: Hold | None) -> World:
    """Let a worker remember something else."""
    workers = (*world.workers[:number], hold, *world.workers[number + 1 :])
    return world._replace(workers=workers)


def dispatch(hold: Hold, route: Route) -> Dispatch:
    """Make what a worker holds of what the claim's row said."""
    claim = Claim(
        id=1,
        fence=hold.fence,
        uuid="uuid",
        channel="sms",
        destination="+919999911111",
        sender=None,
        body="Hello",
        config_id=1,
        route_id=1,
        priority=5,
        resends=hold.key,
        tries=9,
        repeat_until=hold.doubt or None,
        closed=hold.doubt and hold.age >= CLOSED,
        stale=hold.stale,
        age=AGE[hold.age],
    )
    return Dispatch(claim, route, 0.0)


def row(world: World) -> Stranded:
    """Make what a rescuer reads."""
    return Stranded(
        id=1,
        fence=world.fence,
        uuid="uuid",
        channel="sms",
        config_id=1,
        crashes=world.crashes,
        age=AGE[world.age],
    )


def canonical(world: World) -> World:
    """Forget what nothing depends on any more: worlds that differ in no more than that are one."""
    if world.status not in (status.QUEUED, status.SENDING):
        world = world._replace(crashes=0, stale=False)
    if not world.patience:
        world = world._replace(attempts=frozenset())
    holds = [hold for hold in world.workers if hold]
    attempts = _remembered(world, {world.fence, *(hold.fence for hold in holds)})
    held = {world.key, *(hold.key for hold in holds)}
    keys = _numbered({*held, *(key for _, key, _ in attempts)})
    fences = _numbered(
        {world.fence, *(hold.fence for hold in holds), *(fence for fence, _, _ in attempts)}
    )
    workers = sorted(
        hold._replace(fence=fences[hold.fence], key=keys[hold.key]) if hold else ()
        for hold in world.workers
    )
    return world._replace(
        fence=fences[world.fence],
        key=keys[world.key],
        attempts=frozenset((fences[fence], keys[key], state) for fence, key, state in attempts),
        workers=tuple(hold or None for hold in workers),
        rang=tuple(world.rang[key] if key in held else 0 for key in keys),
    )


def _numbered(used: set[int]) -> dict[int, int]:
    return {one: place for place, one in enumerate(sorted(used))}


def _remembered(world: World, alive: set[int]) -> set[tuple[int, int, str]]:
    """Return the attempts that somebody may still speak of, or that a retry is judged by."""
    spoken_of = {world.key, *(key for fence, key, _ in world.attempts if fence in alive)}
    kept = {one for one in world.attempts if one[0] in alive}
    for states in (("accepted",), ("rejected",), ("open", "unknown")):
        last: dict[int, tuple[int, int, str]] = {}
        for fence, key, state in sorted(world.attempts):
            if fence not in alive and state in states:
                last[key] = (fence, key, states[-1])
        kept |= set(last.values())
    return {
        (fence, key, state)
        for fence, key, state in kept
        if fence in alive
        or (key in spoken_of if state != "unknown" else not _answered(world.attempts, fence, key))
    }


class Wrong(AssertionError):
    """An invariant does not hold; says which, and the way there."""


def explore(explorer: Explorer) -> dict[World, tuple[World, Step] | None]:
    """Visit every world; return how each was reached first.

    Raises :class:`Wrong` with the shortest way.
    """
    fresh = World(workers=(None,) * explorer.workers, patience=explorer.patience)
    first = [fresh, fresh._replace(status=status.HELD, due=NEVER)]
    ways: dict[World, tuple[World, Step] | None] = dict.fromkeys(map(canonical, first))
    ahead = deque(ways)
    while ahead:
        world = ahead.popleft()
        for step in explorer.steps(world):
            wrong = transgression(explorer, world, step)
            if step.after not in ways:
                ways[step.after] = (world, step)
                ahead.append(step.after)
                wrong = wrong or misery(explorer, step.after)
            if wrong:
                raise Wrong(f"{wrong}: {' > '.join(_way(ways, world))} > {step.name} {step.about}")
    return ways


def _way(ways: Mapping[World, tuple[World, Step] | None], world: World) -> list[str]:
    before = ways[world]
    return [*_way(ways, before[0]), before[1].name] if before else []


def transgression(explorer: Explorer, world: World, step: Step) -> str | None:
    """Say what is wrong with a step, if anything is."""
    was, now = world.status, step.after.status
    if max(step.after.rang) > 1:
        return "a key rang twice"
    if step.name == "person":
        careful = step.about == "retry" and now != was and was != status.UNDELIVERED
        risky = careful and explorer.punctual and world.rang[world.key]
        return "a careful retry of what rang" if risky else None
    if RANK[was] >= RANK[status.SENT] and RANK[now] < RANK[was]:
        return f"{was} went back to {now}"
    if was in FINAL and now in (status.QUEUED, status.SENDING, status.UNKNOWN):
        return f"{was} is {now} again, and nobody asked"
    licensed = any(was in move.sources and now == move.target for move in MOVES.values())
    if was != now and not licensed and not status.applies(now, was):
        return f"no move leads from {was} to {now}"
    return None


def misery(explorer: Explorer, world: World) -> str | None:
    """Say what is wrong with a world, if anything is."""
    if world.status in (status.QUEUED, status.SENDING) and world.due == NEVER:
        return f"{world.status} for ever"
    if world.told and RANK[world.status] < RANK[status.SENT]:
        return "it was accepted, and that is forgotten"
    hidden = world.status in (status.REJECTED, status.EXPIRED, status.CANCELLED)
    if explorer.punctual and hidden and world.rang[world.key] and not any(world.workers):
        return f"it rang, and is shown as {world.status}"
    end = finish(explorer, world)
    if end is None:
        return "a healthy worker does not finish it"
    automatic = explorer.idempotent and not world.stale and world.age <= INSIDE
    automatic = automatic and world.status != status.UNKNOWN and world.crashes + 1 < outcomes.POISON
    if automatic and end.status == status.UNKNOWN:
        return "an idempotent provider's message is left to a person"
    return None


def finish(explorer: Explorer, world: World) -> World | None:
    """Kill all workers and let a healthy one do its best; return the world at rest, or None."""
    begun = canonical(world._replace(workers=(None,) * explorer.workers))
    if begun not in explorer.finished:
        explorer.finished[begun] = _finished(explorer, begun)
    return explorer.finished[begun]


def _finished(explorer: Explorer, world: World) -> World | None:
    for _ in range(20):
        if world.status not in (status.QUEUED, status.SENDING):
            return world
        for step in explorer.steps(world):
            healthy = step.name in ("claim", "start", "settle", "rescue")
            healthy = healthy or (step.name, step.about) in (
                ("time", "due"),
                ("dial", ("accepted", True)),
            )
            if healthy or (step.name == "dismiss" and step.about[1].status != status.QUEUED):
                world = step.after
                break
        else:
            return None
    return None


def mutate(**changes: Any) -> Rules:
    """Return the true rules but for these."""
    return replace(TRUE, **changes)
