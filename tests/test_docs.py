"""Everything public has its heading, and every link leads somewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
from blinker import Signal

from flask_communication import cli, errors, signals
from flask_communication.settings import Settings
from flask_communication.web import ROUTES
from flask_communication.web.access import ACTIONS

HOME = Path(__file__).parent.parent
DOCS = HOME / "docs"
PAGES = [HOME / "README.md", HOME / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def headings(page: str) -> set[str]:
    return set(re.findall(r"^##+ `?([^`\n]+)`?$", (DOCS / page).read_text(), re.MULTILINE))


def test_every_setting_has_its_heading() -> None:
    assert headings("settings.md") == {f"COMMUNICATION_{one.name.upper()}" for one in fields(Settings)}


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


def test_every_route_has_its_heading_and_every_action_its_row() -> None:
    told = {heading.split()[1] for heading in headings("rest.md") if " " in heading and "/" in heading}
    told |= {"health", "openapi.json", "messages"}
    assert told == {path.lstrip("/") for _, path, _, _ in ROUTES}
    text = (DOCS / "rest.md").read_text()
    for action, meaning in ACTIONS.items():
        assert f"| `{action}` | {meaning} |" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
