"""A process crashes at each crash point, and a healthy one finishes: nothing is lost or doubled."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import text

from flask_communication import SMS
from flask_communication.configs.state import state_of
from flask_communication.errors import SettingError
from flask_communication.storage import crashpoints
from flask_communication.storage.crashpoints import EXIT_CODE, POINTS, TESTING, VARIABLE
from tests.processes import crasher
from tests.support.apps import install, make_due, work

# Children are forked from a process that has imported everything and opened nothing.
FORGE = multiprocessing.get_context("forkserver")
FORGE.set_forkserver_preload(
    ["flask_communication", "flask_sqlalchemy", "psycopg", "rq", "marshmallow"]
)
WINDOWS = {"plain": 0.0, "idempotent": 3600.0}


@dataclass(frozen=True)
class Plan:
    """What a crash leaves: status, attempts and deliveries; and the message's final status."""

    left: str | None
    attempts: str = ""
    rang: int = 0
    plain: str = "delivered"
    idempotent: str = "delivered"
    plain_rang: int = 1
    plot: str = "send"


IN_DOUBT = Plan("sending", "open", plain="unknown", plain_rang=0)
RANG_IN_DOUBT = Plan("sending", "open", rang=1, plain="unknown")
PLANS = {
    "accept.written": Plan(None),
    "accept.committed": Plan("queued"),
    "accept.rung": Plan("queued"),
    "claim.written": Plan("queued"),
    "claim.committed": Plan("queued"),
    "start.written": Plan("queued"),
    "start.committed": IN_DOUBT,
    "call.begun": IN_DOUBT,
    "call.ended": RANG_IN_DOUBT,
    "settle.written": RANG_IN_DOUBT,
    "settle.committed": Plan("sent", "accepted", rang=1),
    "ask.claimed": Plan("sent", "accepted", rang=1),
    "ask.answered": Plan("sent", "accepted", rang=1),
    "land.written": Plan("sent", "accepted", rang=1),
    "land.committed": Plan("delivered", "accepted", rang=1),
    "rescue.found": Plan("sending", "open", rang=1, plain="unknown", plot="rescue"),
    "rescue.written": Plan("sending", "open", rang=1, plain="unknown", plot="rescue"),
    "rescue.committed": Plan(
        "unknown or queued", "unknown", rang=1, plain="unknown", plot="rescue"
    ),
    "decide.written": Plan("rejected", "rejected", plot="retry"),
    "decide.committed": Plan("queued", "rejected", plot="retry"),
}

# How many mails of a mailbox are stored after a crash.
STORED = {"inbox.fetched": 0, "inbox.written": 0, "inbox.filed": len(crasher.MAILS)}


@dataclass
class Scene:
    """One database, one provider, and the processes that use them."""

    url: str
    folder: Path
    kind: str
    redis: str | None = None

    def __post_init__(self) -> None:
        self.app: Flask = crasher.make_app(self.url, self.folder, WINDOWS[self.kind])
        crasher.configure(self.app)

    @property
    def provider(self) -> crasher.Filed:
        found = state_of(self.app).registry.find("filed")
        assert isinstance(found, crasher.Filed)
        return found

    def crash(self, spec: str, plot: str, count: int = 1) -> None:
        """Let a child die at a point; fail if it never came there."""
        given = (spec, plot, self.url, str(self.folder), WINDOWS[self.kind], self.redis, count)
        child = FORGE.Process(target=crasher.crash, args=given)
        child.start()
        child.join(100)
        assert child.exitcode == EXIT_CODE, f"{spec} was not reached: {child.exitcode}"

    def rows(self) -> list[tuple[str, str]]:
        """Return each message's status and the states of its attempts."""
        with state_of(self.app).database.read() as connection:
            found = connection.execute(
                text("SELECT id, status FROM communication_message ORDER BY id")
            ).all()
            tried = connection.execute(
                text("SELECT message_id, state FROM communication_attempt ORDER BY fence")
            ).all()
        return [
            (row.status, " ".join(a.state for a in tried if a.message_id == row.id))
            for row in found
        ]

    def finish(self) -> None:
        """Let a healthy worker do all there is to do, however long its time would be in coming."""
        for _ in range(4):
            make_due(self.app)
            work(self.app)


@pytest.fixture
def scene(upgraded_url: str, tmp_path: Path, kind: str) -> Scene:
    return Scene(upgraded_url, tmp_path, kind)


def act(scene: Scene, point: str, plan: Plan) -> None:
    """Bring the scene to the point, and let a child die there."""
    if plan.plot == "rescue":
        scene.crash("call.ended", "send")
        make_due(scene.app)
        scene.crash(point, "work")
    elif plan.plot == "retry":
        scene.provider.refuses.touch()
        crasher.send(scene.app)
        work(scene.app)
        scene.provider.refuses.unlink()
        scene.crash(point, "retry")
    else:
        scene.crash(point, "send")


def test_every_point_has_its_plan() -> None:
    assert set(PLANS) | set(STORED) == set(POINTS)
    assert len(PLANS) >= 14


@pytest.mark.parametrize("kind", list(WINDOWS))
@pytest.mark.parametrize("point", list(PLANS))
def test_a_death_here_loses_nothing_and_doubles_nothing(
    scene: Scene, point: str, kind: str
) -> None:
    plan = PLANS[point]
    act(scene, point, plan)
    left = (
        plan.left if plan.left != "unknown or queued" else {"plain": "unknown"}.get(kind, "queued")
    )
    assert scene.rows() == ([] if left is None else [(left, plan.attempts)])
    assert len(scene.provider.rang) == plan.rang
    if point == "decide.written":
        crasher.PLOTS["retry"](scene.app, 1)  # the person got no answer, and asks again
    # Whoever sent it got no answer either, and sends it again under its idempotency key.
    (uuid,) = crasher.send(scene.app)
    scene.finish()
    end = plan.plain if kind == "plain" else plan.idempotent
    assert [status for status, _ in scene.rows()] == [end]
    with scene.app.app_context():
        assert SMS.get(uuid).status == end
    assert len(scene.provider.rang) == (plan.plain_rang if kind == "plain" else 1)


@pytest.mark.parametrize(("point", "jobs"), [("accept.committed", 0), ("accept.rung", 1)])
def test_the_bell_rings_after_the_commit(
    upgraded_url: str, tmp_path: Path, redis_url: str, point: str, jobs: int
) -> None:
    scene = Scene(upgraded_url, tmp_path, "plain", redis_url)
    scene.crash(point, "send")
    assert Redis.from_url(redis_url).llen("rq:queue:communication") == jobs
    assert scene.rows() == [("queued", "")]


@pytest.mark.parametrize("kind", list(WINDOWS))
def test_deaths_one_after_another_among_many_messages(scene: Scene, kind: str) -> None:
    seed = 20261123
    print("seed", seed)
    chance, count = random.Random(seed), 30
    inside = [
        point for point in POINTS if point.split(".")[0] in ("claim", "start", "call", "settle")
    ]
    crasher.send(scene.app, count)
    for point in chance.sample(inside, k=4):
        make_due(scene.app)
        scene.crash(f"{point}:{chance.randint(1, 2)}", "work")
    for _ in range(2):
        scene.finish()
    rang, ends = Counter(scene.provider.rang), Counter(status for status, _ in scene.rows())
    assert max(rang.values()) == 1
    assert ends["delivered"] + ends["unknown"] == count
    assert ends["delivered"] <= len(rang)
    # Four deaths, each with at most four calls under way; a repeat is in doubt for one death only.
    assert ends["unknown"] <= 4 * 4
    if kind == "idempotent":
        assert ends["unknown"] == 0, "no message was in three deaths, which leave it to a person"


@pytest.mark.parametrize("point", list(STORED))
def test_a_crash_while_a_mailbox_is_read_stores_each_mail_once(
    upgraded_url: str, tmp_path: Path, point: str
) -> None:
    scene = Scene(upgraded_url, tmp_path, "plain")
    install(scene.app, scene.provider, type="email")
    scene.crash(point, "inbox")
    assert len(scene.rows()) == STORED[point]
    for _ in range(2):
        crasher.PLOTS["inbox"](scene.app, 1)
    assert scene.rows() == [("received", "")] * len(crasher.MAILS)


def run(environ: dict[str, str], code: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **environ}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given)


def test_the_variable_is_read_at_import_and_counts_passes() -> None:
    code = "from flask_communication.storage.crashpoints import crash_point as c; "
    code += (
        "c('call.begun', []); print(1); c('call.begun'); print(2, flush=True); c('call.ended'); "
    )
    code += "c('call.begun'); print(3, flush=True)"
    ended = run({VARIABLE: "call.begun:2", TESTING: "1"}, code)
    assert (ended.returncode, ended.stdout.split()) == (EXIT_CODE, ["1", "2"])
    assert "this process will kill itself there" in ended.stderr
    ended = run({VARIABLE: "", TESTING: "1"}, code)
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["1", "2", "3"], "")


@pytest.mark.parametrize("spec", ["call", "call.begun:", "call.begun:0", "call.begun:x", ":1"])
def test_an_unknown_point_is_refused_with_the_names(spec: str) -> None:
    with pytest.raises(SettingError, match="names no crash point"):
        crashpoints.arm(spec)


def test_the_environment_may_not_name_an_unknown_point() -> None:
    ended = run({VARIABLE: "nowhere", TESTING: "1"}, "import flask_communication")
    assert ended.returncode == 1
    assert all(name in ended.stderr for name in POINTS)


@pytest.mark.parametrize("testing", ["", "0", "true"])
@pytest.mark.parametrize("spec", ["call.begun", "nowhere"])
def test_the_variable_alone_kills_nothing_and_logs_a_warning(spec: str, testing: str) -> None:
    code = "from flask_communication.storage.crashpoints import crash_point as c; "
    code += "c('call.begun'); print('alive')"
    ended = run({VARIABLE: spec, TESTING: testing}, code)
    assert (ended.returncode, ended.stdout.strip()) == (0, "alive")
    assert f"{VARIABLE}={spec} has no effect without {TESTING}=1" in ended.stderr
