"""The doctor: checks of an installation, one finding a check, each with the next step.

Nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ...configs import store, tokens
from ...configs.routes import Route, Routes
from ...configs.state import State
from ...errors import CommunicationError, ProviderError
from . import health

OK, WARN, FAIL = "ok", "warn", "fail"
# File systems of another machine, whose locks and shared memory SQLite cannot rely on.
_REMOTE = frozenset(
    "9p afs ceph cifs fuse.ceph fuse.glusterfs fuse.s3fs fuse.sshfs glusterfs lustre ncpfs nfs "
    "nfs4 smb3 smbfs vboxsf".split()
)


class Finding(NamedTuple):
    """The result of one check: ``level`` is ok, warn or fail."""

    level: str
    about: str
    says: str


def examine(state: State) -> Iterator[Finding]:
    """Run all checks; a finding of level fail keeps messages from being sent."""
    yield from _database(state)
    found = health.read(state)
    yield _bell(found["bell"])
    yield _doors(state, is_there=found["database"]["ok"])
    if not found["database"]["ok"]:
        yield Finding(
            FAIL, "tables", f"{found['database']['problem']}; nothing else can be checked"
        )
        return
    yield Finding(OK, "tables", "up to date")
    yield _workers(found)
    yield from _waiting(found)
    with state.database.read() as connection:
        routes = Routes(state).load(connection)
    yield from _defaults(state)
    yield from _configs(state, routes)


def _database(state: State) -> Iterator[Finding]:
    try:
        url = state.database.engine.url
    except CommunicationError as wrong:
        yield Finding(FAIL, "database", str(wrong))
        return
    if url.get_backend_name() != "sqlite":
        yield Finding(OK, "database", f"{url.get_backend_name()} at {url.host or 'a local socket'}")
    elif state.database.shares_one_connection:
        says = "SQLite in memory: it ends with this process, and no worker can share it; use a file"
        yield Finding(WARN, "database", says)
    else:
        kind = _file_system(Path(url.database or "").absolute(), Path("/proc/self/mounts"))
        if kind in _REMOTE:
            where = f"{url.database} is on {kind}"
            says = f"{where}, where SQLite loses data; use a local disk, or PostgreSQL"
            yield Finding(FAIL, "database", says)
        else:
            yield Finding(OK, "database", f"SQLite file {url.database}")


def _file_system(file: Path, mounts: Path) -> str | None:
    """Return the kind of file system that a file is on; None where the system does not say."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    places = {Path(line[1].replace("\\040", " ")): line[2] for line in lines if len(line) > 2}
    above = [place for place in places if file.resolve().is_relative_to(place)]
    return places[max(above, key=lambda place: len(place.parts))] if above else None


def _bell(bell: Mapping[str, Any]) -> Finding:
    if "problem" in bell:
        says = f"cannot be reached ({bell['problem']}); messages are late, not lost."
        says += " Start it, or correct "
        return Finding(WARN, "redis", f"{says}COMMUNICATION_REDIS_URL")
    return Finding(OK, "redis", "answers" if bell["kind"] == "redis" else "not set, and not needed")


def _doors(state: State, *, is_there: bool) -> Finding:
    if state.authorize is not None:
        return Finding(OK, "access", "authorize is set")
    now = datetime.now(UTC)
    valid = is_there and any(
        one.revoked_at is None and (one.expires_at is None or one.expires_at > now)
        for one in tokens.listing(state)
    )
    if valid:
        return Finding(
            OK, "access", "by bearer tokens only; people need Communication(authorize=…)"
        )
    says = "nobody is let in; pass Communication(authorize=…), or: flask communication token create"
    return Finding(WARN, "access", says)


def _workers(found: Mapping[str, Mapping[str, Any]]) -> Finding:
    workers = found["workers"]
    if not workers["ok"]:
        return Finding(FAIL, "workers", workers["problem"])
    if workers["alive"]:
        return Finding(OK, "workers", f"{workers['alive']} attended in the last minute")
    if found["bell"]["kind"] == "embedded":
        return Finding(
            OK, "workers", "none now; a web process attends from its first request or message"
        )
    return Finding(
        WARN, "workers", "nobody attended in the last minute; start: flask communication worker"
    )


def _waiting(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    oldest, due = found["database"]["oldest_due_seconds"] or 0.0, found["database"]["due"]
    level = WARN if oldest > health.TOO_LATE else OK
    yield Finding(level, "due messages", f"{due}, the oldest for {oldest:.0f} s" if due else "none")
    count = found["messages"]["by_status"]
    for status, step in (
        ("held", "release UUID, or cancel UUID"),
        ("unknown", "resolve UUID sent|resend|drop"),
    ):
        if count.get(status):
            see = f"flask communication messages --status {status}"
            says = f"{count[status]}; see: {see}, then: {step}"
            yield Finding(WARN, f"{status} messages", says)
        else:
            yield Finding(OK, f"{status} messages", "none")


def _defaults(state: State) -> Iterator[Finding]:
    rows = store.listing(state)
    if not rows:
        yield Finding(WARN, "configurations", "none; add one: flask communication config add")
    for channel in state.channel_names:
        mine = [row for row in rows if row["type"] == channel]
        default = next((row for row in mine if row["is_default"]), None)
        if mine and default is None:
            says = "none, so each call needs a key; flask communication config update ID --default"
            yield Finding(WARN, f"default {channel}", says)
        elif default is not None and not default["enabled"]:
            fix = "flask communication config update ID --enabled"
            says = f"configuration {default['id']} is disabled; {fix}"
            yield Finding(FAIL, f"default {channel}", says)
        elif default is not None:
            yield Finding(OK, f"default {channel}", f"configuration {default['id']}")


def _configs(state: State, routes: Mapping[int, Route]) -> Iterator[Finding]:
    strangers = store.unknown_fallbacks(state)
    for row in store.listing(state):
        route, about = routes[row["id"]], f"{row['type']} configuration {row['id']}"
        if row["enabled"] and route.trouble is not None:
            # A pause ends by itself; what is blocked or stopped waits for a person.
            level = WARN if route.blocked is None and route.breaker.left is not None else FAIL
            yield Finding(level, about, route.trouble)
        else:
            yield Finding(OK, about, "well" if row["enabled"] else "disabled")
        for name in strangers.get(row["id"], ()):
            yield Finding(WARN, about, f"its fallback {name!r} is the key of no configuration")
        if state.settings.public_url is None and _wants_webhooks(route):
            says = "its provider sends webhooks; set COMMUNICATION_PUBLIC_URL to your own address"
            yield Finding(WARN, about, says)


def _wants_webhooks(route: Route) -> bool:
    return "webhooks" in route.learn().features


def try_out(state: State, config_id: Any) -> Iterator[Finding]:
    """Check one configuration, and ask its provider as far as that sends nothing.

    Raises :class:`ConfigNotFound`.
    """
    about = store.name_of(state, config_id)
    with state.database.read() as connection:
        route = Routes(state).load(connection)[int(config_id)]
    if route.provider is None or route.blocked is not None:
        yield Finding(FAIL, about, route.blocked or "it has no provider")
        return
    can = route.learn()
    channel, name = about.partition(" ")[0], route.provider.name
    with route.guarded():
        if channel not in can.types:
            yield Finding(WARN, about, f"{name} says it is for {', '.join(can.types)} only")
        yield from (Finding(level, about, says) for level, says in _flaws(route))
        try:
            found = route.provider.check(route.config)
            yield Finding(
                OK, about, found or f"{name} has nothing to try without sending; send yourself one"
            )
        except ProviderError as wrong:
            yield Finding(FAIL, about, wrong.reason)
        except Exception as wrong:
            # What a provider's own code says may repeat a secret.
            yield Finding(
                FAIL, about, f"the check of {name} itself failed ({type(wrong).__name__}); mend it"
            )
    if route.breaker.is_paused:
        yield Finding(WARN, about, f"it is {route.breaker}")


def _flaws(route: Route) -> Iterator[tuple[str, str]]:
    """Say where the settings contradict what the provider declares.

    Their values are not repeated.
    """
    schema = route.capabilities.config_schema or {}
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return
    for name in schema.get("required", ()):
        if route.config.get(name) in (None, ""):
            yield FAIL, f"the setting {name} is missing"
    for name, value in route.config.items():
        about = properties.get(name)
        if not isinstance(about, Mapping):
            yield WARN, f"the setting {name} is none of {', '.join(map(str, properties))}"
        elif "enum" in about and value not in about["enum"]:
            yield FAIL, f"the setting {name} must be one of {', '.join(map(str, about['enum']))}"
