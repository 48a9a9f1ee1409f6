"""Everything public has its heading, and every link leads somewhere."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from string import Template

import click
import pytest
from blinker import Signal
from cryptography.fernet import Fernet
from flask import Flask

import flask_communication
from flask_communication import SMS, Communication, Email, cli, errors, signals
from flask_communication.configs import tokens
from flask_communication.configs.settings import Settings
from flask_communication.configs.state import state_of
from flask_communication.configs.tokens import ACTIONS
from flask_communication.delivery import outcomes
from flask_communication.email import incoming
from flask_communication.email.api import FIELDS
from flask_communication.email.channel import CHANNEL
from flask_communication.providers.base import InboundEmail
from flask_communication.providers.simulator import Simulator
from flask_communication.storage.crashpoints import POINTS
from flask_communication.storage.models import status
from flask_communication.web.endpoints import ENDPOINTS
from tests.support.apps import MakeApp, install, work

HOME = Path(__file__).parent.parent
DOCS = HOME / "docs"
PAGES = [HOME / "README.md", HOME / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def headings(page: str) -> set[str]:
    return set(re.findall(r"^##+ `?([^`\n]+)`?$", (DOCS / page).read_text(), re.MULTILINE))


def test_every_setting_has_its_heading() -> None:
    assert headings("settings.md") == {
        f"COMMUNICATION_{one.name.upper()}" for one in fields(Settings)
    }


def test_every_signal_has_its_heading() -> None:
    names = {name for name, thing in vars(signals).items() if isinstance(thing, Signal)}
    assert headings("signals.md") == names


def test_every_error_has_its_heading_and_stands_in_the_tree() -> None:
    names = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing)
        and issubclass(thing, errors.CommunicationError)
        and not name.startswith("_")
    }
    assert headings("errors.md") == names
    assert all(name in (errors.__doc__ or "") for name in names)


def commands(group: click.Group, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name


def test_every_command_has_its_heading() -> None:
    assert headings("commands.md") == set(commands(cli.communication))


def is_route(heading: str) -> bool:
    return heading.split()[0] in ("GET", "POST", "PUT", "PATCH", "DELETE")


def test_every_route_has_its_heading_and_every_action_its_row() -> None:
    told = {heading.split()[1] for heading in headings("rest.md") if is_route(heading)}
    assert told == {one.path.lstrip("/") for one in ENDPOINTS}
    text = (DOCS / "rest.md").read_text()
    for action, meaning in ACTIONS.items():
        assert f"| `{action}` | {meaning} |" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## `?([^`\n]+)`?$", (DOCS / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", sorted(headings("settings.md")))
def test_every_setting_tells_its_default_and_has_an_example_that_is_accepted(name: str) -> None:
    told = sections("settings.md")[name]
    assert "efault" in told
    (example,) = re.findall(rf"^Example: `{name} = (.+)`$", told, re.MULTILINE)
    environ = {key: Fernet.generate_key().decode() for key in ("NEW_KEY", "OLD_KEY")}
    value = eval(example, {"environ": environ})
    field = name.removeprefix("COMMUNICATION_").lower()
    assert getattr(Settings.from_config({name: value}), field) != getattr(Settings(), field)


@pytest.mark.parametrize("name", sorted(headings("errors.md")))
def test_every_error_says_what_to_do(name: str) -> None:
    assert "**Do:** " in sections("errors.md")[name]


def test_every_exported_name_has_its_row_and_every_page_its_link() -> None:
    text = (DOCS / "index.md").read_text()
    names = set(flask_communication.__all__)
    for owner in (SMS, Email, Communication):
        public = {one for one in dir(owner) if not one.startswith("_")}
        names |= {f"{owner.__name__}.{one}" for one in public - set(FIELDS) - {"channel"}}
    table = sections("index.md")["What you import"]
    assert set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)) == names
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in text, page.name


def received(app: Flask) -> str:
    arrival = incoming.parse(1, InboundEmail("1", b"From: ann@example.com\r\n\r\nHello"))
    with state_of(app).database.write() as connection:
        return str(incoming.store(connection, CHANNEL, 1, [arrival])[0]["uuid"])


def curls() -> list[str]:
    blocks = re.findall(
        r"^```sh\n(curl .*?)^```$", (DOCS / "rest.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return [block.replace("\\\n", " ") for block in blocks]


def test_every_route_has_its_curl() -> None:
    for heading, told in sections("rest.md").items():
        assert not is_route(heading) or "```sh\ncurl " in told, heading


@pytest.mark.parametrize(
    "curl", curls(), ids=lambda curl: curl.split("$ROOT")[1].strip().rstrip('"')
)
def test_every_curl_works(make_app: MakeApp, upgraded_sqlite_url: str, curl: str) -> None:
    app = make_app(
        upgraded_sqlite_url, authorize=None, COMMUNICATION_ALLOWED_COUNTRIES=["+1", "+91"]
    )
    install(app, Simulator())
    install(app, Simulator(), type="email", is_default=True)
    with app.app_context():
        email = Email(
            to="ann@example.com", subject="Hi", html="<p>Hi</p>", sender="shop@example.com"
        )
        unknown = SMS.send_msg("+15550100006", "Hello")
        held = SMS.send_msg("+447400123456", "Hello")
        SMS.suppress("+919999922222", "SHOP")
        work(app)
        known = {
            "ROOT": "/communication",
            "AUTH": f"Authorization: Bearer {tokens.create(state_of(app), 'docs', ['*'], None)}",
            "JSON": "Content-Type: application/json",
            "UUID": SMS.send_msg("+919999911111", "Hello"),
            "UNKNOWN": unknown,
            "HELD": held,
            "RECEIVED": received(app),
            "EMAIL": email.attach(b"x", "a.bin").send(),
        }
    words = [Template(word).substitute(known) for word in shlex.split(curl)[1:]]
    given: dict[str, list[str]] = {"-H": [], "-d": [], "-X": []}
    while words[:1] and words[0] in given:
        given[words[0]].append(words[1])
        words = words[2:]
    (path,) = words
    answer = app.test_client(use_cookies=False).open(
        path,
        method=(given["-X"] or ["POST" if given["-d"] else "GET"])[0],
        headers=[tuple(header.split(": ", 1)) for header in given["-H"]],
        data="".join(given["-d"]) or None,
    )
    assert answer.status_code == 200, answer.text
    if answer.mimetype == "application/json":
        assert answer.json is not None
        assert answer.json.get("success", True) is True


def test_reliability_tells_every_status_and_the_steps_of_the_code() -> None:
    text = " ".join((DOCS / "reliability.md").read_text().split())
    words = set(re.findall(r"`([a-z]+)`", text))
    assert words >= status.STATUSES
    *first, last = [f"{step:.0f}" for step in outcomes.BACKOFF]
    assert f"{', '.join(first)}, then {last} seconds" in text
    *first, last = [f"{step:.0f}" for step in outcomes.REPEATS]
    assert f"{', '.join(first)}, then every {last} seconds" in text
    assert f"{outcomes.WINDOW_SHARE:.0%}".replace("%", " %") in text


def test_every_crash_point_has_its_row() -> None:
    text = (DOCS / "reliability.md").read_text()
    for name, meaning in POINTS.items():
        assert f"| `{name}` | {meaning} |" in text
