"""A token is shown once, kept as a hash, and good for what its scopes say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, update

from flask_communication.configs import tokens
from flask_communication.configs.state import State, state_of
from flask_communication.configs.tokens import ACTIONS
from flask_communication.errors import InvalidQuery, TokenNotFound
from flask_communication.storage.models import Token
from tests.support.apps import MakeApp


@pytest.fixture
def state(make_app: MakeApp, upgraded_url: str) -> State:
    return state_of(make_app(upgraded_url, db=False))


def parts(token: str) -> tuple[str, str]:
    """Return a token's public id and its secret, which may itself hold underscores."""
    prefix, public, secret = token.split("_", 2)
    assert prefix == "fc"
    return public, secret


def test_a_token_that_was_made_is_found_again(state: State) -> None:
    presented = tokens.create(state, "billing", ["message.send"])
    found = tokens.check(state, presented)
    assert found is not None
    assert (found.name, found.scopes, found.expires_at) == ("billing", ["message.send"], None)


def test_two_tokens_of_one_name_are_two_tokens(state: State) -> None:
    first, second = (tokens.create(state, "billing", ["*"]) for _ in range(2))
    assert parts(first)[0] != parts(second)[0]
    assert parts(first)[1] != parts(second)[1]
    assert len(parts(first)[1]) >= 43


def test_the_secret_is_in_no_row_and_in_no_repr(state: State) -> None:
    secret = parts(tokens.create(state, "billing", ["*"]))[1]
    (listed,) = tokens.listing(state)
    with state.database.read() as connection:
        kept = str(connection.exec_driver_sql("SELECT * FROM communication_token").all())
    assert secret not in kept + repr(listed) + str(vars(listed))


def test_tokens_are_listed_oldest_first(state: State) -> None:
    for name in ("one", "two", "three"):
        tokens.create(state, name, ["*"])
    assert [token.name for token in tokens.listing(state)] == ["one", "two", "three"]


def test_scopes_are_kept_once_each_and_in_order(state: State) -> None:
    tokens.create(state, "billing", ["message.send", "config.read", "message.send"])
    assert tokens.listing(state)[0].scopes == ["config.read", "message.send"]


@pytest.mark.parametrize(("name", "scopes"), [("billing", []), ("", ["*"]), ("  ", ["*"])])
def test_a_token_without_a_name_or_a_scope_is_not_made(
    state: State, name: str, scopes: list[str]
) -> None:
    with pytest.raises(InvalidQuery):
        tokens.create(state, name, scopes)
    assert tokens.listing(state) == []


@pytest.mark.parametrize("scope", ["bogus", "message.bogus", "bogus.*", "*.send", "message", ""])
def test_a_scope_that_allows_nothing_is_refused_with_those_that_do(
    state: State, scope: str
) -> None:
    with pytest.raises(InvalidQuery, match=r"message\.send.*message\.\*"):
        tokens.create(state, "billing", ["message.send", scope])
    assert tokens.listing(state) == []


@pytest.mark.parametrize("lasts", [timedelta(0), timedelta(days=-1), timedelta(days=40_000)])
def test_a_token_whose_life_is_over_or_endless_is_not_made(state: State, lasts: timedelta) -> None:
    with pytest.raises(InvalidQuery, match="expires_in"):
        tokens.create(state, "billing", ["*"], lasts)


def test_a_long_name_is_cut_and_the_token_works(state: State) -> None:
    assert tokens.check(state, tokens.create(state, "é" * 300, ["*"])) is not None
    assert tokens.listing(state)[0].name == "é" * 100


def test_a_secret_fits_only_its_own_id(state: State) -> None:
    mine, theirs = (parts(tokens.create(state, name, ["*"])) for name in ("mine", "theirs"))
    assert tokens.check(state, f"fc_{mine[0]}_{theirs[1]}") is None
    assert tokens.check(state, f"fc_{mine[0]}_{mine[1][:-1]}") is None
    assert tokens.check(state, f"fc_{mine[0]}_{mine[1]}x") is None
    assert tokens.check(state, f"xx_{mine[0]}_{mine[1]}") is None


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "fc",
        "fc_",
        "fc__",
        "fc___",
        "_",
        "fc_x_y",
        "é_é_é",
        "fc_\ud800_\ud800",
        "fc_\x00_\x00",
        "_" * 9999,
    ],
)
def test_garbage_is_no_token_and_no_error(state: State, presented: str) -> None:
    tokens.create(state, "billing", ["*"])
    assert tokens.check(state, presented) is None


def test_the_hash_that_is_kept_opens_nothing(state: State) -> None:
    public, _ = parts(tokens.create(state, "billing", ["*"]))
    assert tokens.check(state, f"fc_{public}_{tokens.listing(state)[0].secret_hash}") is None


def test_a_token_ends_at_its_hour_and_not_before(state: State) -> None:
    presented = tokens.create(state, "billing", ["*"], timedelta(hours=1))
    assert tokens.check(state, presented) is not None
    with state.database.write() as connection:
        connection.execute(
            update(Token).values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        )
    assert tokens.check(state, presented) is None


def test_a_revoked_token_is_worthless_and_the_others_are_not(state: State) -> None:
    gone, kept = (tokens.create(state, name, ["*"]) for name in ("gone", "kept"))
    tokens.revoke(state, parts(gone)[0])
    assert tokens.check(state, gone) is None
    assert tokens.check(state, kept) is not None
    assert [token.revoked_at is None for token in tokens.listing(state)] == [False, True]


def test_what_is_not_there_or_is_revoked_cannot_be_revoked(state: State) -> None:
    public, _ = parts(tokens.create(state, "billing", ["*"]))
    tokens.revoke(state, public)
    for unknown in (public, "0123456789abcdef", ""):
        with pytest.raises(TokenNotFound):
            tokens.revoke(state, unknown)


def test_use_is_noted_but_not_at_every_use(state: State) -> None:
    presented = tokens.create(state, "billing", ["*"])
    written: list[str] = []

    @event.listens_for(state.database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        written.extend([statement] if statement.startswith("UPDATE") else [])

    for _ in range(5):
        tokens.check(state, presented)
    assert len(written) == 1
    used = tokens.listing(state)[0].last_used_at
    assert used is not None
    assert abs(datetime.now(UTC) - used) < timedelta(seconds=30)


def test_a_refused_token_is_not_noted_as_used(state: State) -> None:
    public, _ = parts(tokens.create(state, "billing", ["*"]))
    tokens.check(state, f"fc_{public}_wrong")
    assert tokens.listing(state)[0].last_used_at is None


@pytest.mark.parametrize(
    ("scopes", "action", "allowed"),
    [
        (["*"], "config.delete", True),
        (["message.*"], "message.send", True),
        (["message.*"], "config.read", False),
        (["message.send"], "message.send", True),
        (["message.send"], "message.read", False),
        (["config.read", "message.send"], "message.send", True),
        (["message"], "message.send", False),
        (["mess*"], "message.send", False),
        (["*.send"], "message.send", False),
        (["MESSAGE.SEND"], "message.send", False),
        ([""], "message.send", False),
    ],
)
def test_scopes_cover_what_they_say_and_no_more(
    scopes: list[str], action: str, allowed: bool
) -> None:
    assert tokens.allows(Token(scopes=scopes), action) is allowed


@given(scope=st.text(max_size=20), action=st.sampled_from(sorted(ACTIONS)))
def test_no_odd_scope_covers_anything(scope: str, action: str) -> None:
    covering = {"*", action, action.partition(".")[0] + ".*"}
    assert tokens.allows(Token(scopes=[scope]), action) is (scope in covering)
