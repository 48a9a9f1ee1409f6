"""A recipient is found however a person writes it."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication import SMS, Email
from flask_communication.configs.state import state_of
from flask_communication.errors import InvalidMessage, InvalidQuery
from flask_communication.formats import numbers
from tests.support.apps import MakeApp, install, work
from tests.support.providers import Scripted

TO = "+919999911112"


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str) -> Flask:
    app = make_app(upgraded_url)
    install(app, Scripted())
    install(app, Scripted(), type="email")
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        SMS.send_msg("+919999911113", "Hello")
        Email(to="Ann <Ann@Example.com>", cc="bob@example.com", body="Hello").send()
        Email(to="bob@example.com", cc="ann@example.com", body="Hello").send()
        Email(to="eve@example.com", body="Hello").send()
    return app


def run(app: Flask, *words: str) -> str:
    result = app.test_cli_runner().invoke(args=["communication", *words])
    assert result.exit_code == 0, result.output
    return result.output


NUMBERS = [
    TO,
    "+91 99999 11112",
    "+91-99999-11112",
    "(+91) 99999.11112",
    " +91\u00a099999\u00a011112\n",
]
WITHOUT_PLUS = ["919999911112", "91 99999 11112"]
ADDRESSES = ["ann@example.com", "Ann@Example.com", "ANN@EXAMPLE.COM", "Ann <ann@example.com>"]


@pytest.mark.parametrize("said", [*NUMBERS, *WITHOUT_PLUS])
def test_a_number_is_found_however_it_is_spaced(app: Flask, said: str) -> None:
    assert len(run(app, "messages", "--to", said).splitlines()) == 2
    found = (
        app.test_client().get("/communication/messages/", query_string={"destination": said}).json
    )
    assert [one["destination"] for one in found["data"]] == [TO]  # type: ignore[index]
    assert "1 messages deleted" in run(app, "erase", said, "--yes")
    with app.app_context():
        assert not SMS.messages(destination=said).items
        assert len(SMS.messages().items) == 1


def test_a_plus_that_a_query_has_made_a_space_is_a_plus(app: Flask) -> None:
    client = app.test_client()
    found = client.get("/communication/messages/?destination=+91 99999 11112").json
    assert len(found["data"]) == 1  # type: ignore[index]
    run(app, "suppression", "add", TO)
    found = client.get("/communication/suppressions/?destination=+919999911112").json
    assert len(found["data"]) == 1  # type: ignore[index]


@pytest.mark.parametrize("said", ADDRESSES)
def test_an_address_is_found_however_it_is_capitalised(app: Flask, said: str) -> None:
    with app.app_context():
        assert len(Email.messages(destination=said).items) == 2
    assert len(run(app, "messages", "--to", said).splitlines()) == 3
    assert "2 messages deleted" in run(app, "erase", said, "--yes")
    with app.app_context():
        assert len(Email.messages().items) == 1


def test_a_number_of_the_default_region_needs_no_plus(make_app: MakeApp, upgraded_url: str) -> None:
    app = make_app(upgraded_url, COMMUNICATION_DEFAULT_REGION="IN")
    install(app, Scripted())
    with app.app_context():
        SMS.send_msg("99999 11112", "Hello")
        assert len(SMS.messages(destination="099999 11112").items) == 1
        assert SMS.erase("9999911112") == (1, 0)


def test_what_is_no_number_is_found_as_it_is(app: Flask) -> None:
    with app.app_context():
        SMS.receive("VK-SHOP", "15550101234", "Hello")
        assert len(SMS.messages(destination="15550101234").items) == 1
        assert SMS.erase("vk-shop") == (1, 0)


def test_nobody_is_erased_by_an_empty_name(app: Flask) -> None:
    with app.app_context():
        for nobody in ("", "  "):
            with pytest.raises(InvalidQuery):
                SMS.erase(nobody)


@pytest.mark.parametrize("said", [TO, "+91 99999 11112"])
def test_what_is_held_is_released_however_its_number_is_spaced(
    make_app: MakeApp, upgraded_url: str, said: str
) -> None:
    app = make_app(
        upgraded_url,
        COMMUNICATION_ALLOWED_COUNTRIES=["+1"],
        COMMUNICATION_LIMIT_PER_DAY={"email": 1},
    )
    install(app, Scripted())
    install(app, Scripted(), type="email")
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        SMS.send_msg("+919999911113", "Hello")
        Email(to="eve@example.com", body="Hello", sender="shop@example.com").send()
        work(app)
        Email(to="Ann@Example.com", body="Hello", sender="shop@example.com").send()
        work(app)
    assert "1 released" in run(app, "release", "--all", "--to", said)
    assert "1 released" in run(app, "release", "--all", "--to", "ann@example.com")


@pytest.mark.parametrize("said", [*NUMBERS, *WITHOUT_PLUS])
def test_a_suppression_is_found_however_its_number_is_spaced(app: Flask, said: str) -> None:
    run(app, "suppression", "add", TO)
    run(app, "suppression", "add", "Eve@Example.com")
    assert TO in run(app, "suppression", "list", "--to", said)
    assert "eve@example.com" in run(app, "suppression", "list", "--to", "EVE@example.com")
    if said in NUMBERS:
        assert "no more" in run(app, "suppression", "remove", said)


def test_what_was_counted_of_an_address_is_forgotten_with_it(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url, COMMUNICATION_LIMIT_PER_RECIPIENT=[(9, 600)])
    install(app, Scripted(), type="email")
    with app.app_context():
        Email(to="Ann@Example.com", body="Hello", sender="shop@example.com").send()
        work(app)
        Email.erase("ann@example.com")
        with state_of(app).database.read() as connection:
            counted = (
                "SELECT count(*) FROM communication_usage WHERE scope LIKE 'email:recipient/600:%'"
            )
            assert connection.scalar(text(counted)) == 0


@pytest.mark.parametrize(
    "said", ["+9199\n999", "+9199\t99911112", "+9199\r\n99911112", "+91\u202899911112"]
)
def test_two_lines_are_not_one_number(said: str) -> None:
    with pytest.raises(InvalidMessage):
        numbers.parse_number(said)


WRONG = {
    "+91 99999 x1111": "it has 'x' (U+0078), which is no digit",
    "+91/99999": "it has '/' (U+002F)",
    "+91\u0660999999": "it has '\u0660' (U+0660)",
    "+91\n99999": "it has a control character or line break (U+000A)",
    "91+99999111": "it has a + that is not at its beginning",
    "++9199999111": "it has a + that is not at its beginning",
    "+0919999911": "it has a 0 after the +",
    "+123456": "it has 6 digits; a number has 7 to 15",
    "+1234567890123456": "it has 16 digits; a number has 7 to 15",
    "9999911112": "it begins without +; write the country code, or set COMMUNICATION_DEFAULT_REG",
    "": "it has no digits",
    " + ": "it has no digits",
}


@pytest.mark.parametrize("said", WRONG, ids=ascii)
def test_a_number_that_is_refused_is_told_what_is_wrong_with_it(said: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        numbers.parse_number(said)
    (reason,) = refused.value.errors["destination"]
    assert reason.startswith("must be a phone number in international form, such as +919999911111")
    assert WRONG[said] in reason


def test_a_number_that_no_region_has_is_told_so() -> None:
    with pytest.raises(InvalidMessage, match="begins without \\+, and is no number of IN"):
        numbers.parse_number("1", "IN")
    with pytest.raises(InvalidMessage, match="must be a string"):
        numbers.parse_number(919999911111)


SENDERS = {
    ("+91 99999-11112", None): "+919999911112",
    ("919999911112", None): "+919999911112",
    ("919999911112", "IN"): "+919999911112",
    ("9999911112", "IN"): "+919999911112",
    ("099999 11112", "IN"): "+919999911112",
    ("0049 30 901820", "DE"): "+4930901820",
    ("15550101234", "IN"): "+15550101234",
    ("56789", None): "56789",
    ("56789", "IN"): "56789",
    ("VK-SHOP", "IN"): "VK-SHOP",
    ("099999 11112", None): "099999 11112",
    ("+0999", None): "+0999",
}


@pytest.mark.parametrize(("said", "region"), SENDERS)
def test_a_senders_number_has_the_form_of_a_recipients(said: str, region: str | None) -> None:
    assert numbers.parse_sender(said, region) == SENDERS[said, region]


@pytest.mark.parametrize("said", [*NUMBERS, "919999911112"])
def test_recipients_senders_and_searches_agree(said: str) -> None:
    assert numbers.candidates(said, "IN")[0] == TO
    assert numbers.parse_number(said, "IN") == TO
    assert numbers.parse_sender(said, "IN") == TO


def test_a_stop_of_a_number_written_as_at_home_silences_that_number(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_DEFAULT_REGION="IN")
    install(app, Scripted(), is_default=True)
    with app.app_context():
        SMS.receive("099999 11112", "+15550101234", "STOP")
        uuid = SMS.send_msg(TO, "Hello", sender="+15550101234")
        work(app)
        assert SMS.get(uuid).status == "rejected"
