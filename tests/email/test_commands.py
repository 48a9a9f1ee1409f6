"""The commands ``show`` and ``messages`` tell of an email what they tell of an SMS, and more."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import text

from flask_communication import Email
from flask_communication.configs.state import state_of
from tests.support.apps import work
from tests.support.postbox import ANN, BOB, Postbox, bounce, mail, received, sent


def run(app: Flask, *words: str) -> str:
    result = app.test_cli_runner().invoke(args=["communication", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_story_of_an_email_tells_its_recipients_files_and_what_came_back(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        uuid = Email(to=[ANN, BOB], subject="Your bill", body="Hi").attach(b"x", "bill.pdf").send()
        work(app)
        postbox.mails.append(bounce(postbox.sent[0].message_id, BOB))
        Email.sync_inbox()
    told = run(app, "show", uuid).splitlines()
    assert "  subject: Your bill" in told
    assert f"  to {ANN}: sent" in told
    assert f"  to {BOB}: undelivered, 550 5.1.1 no such user (5.1.1)" in told
    assert "  file: bill.pdf (application/pdf)" in told
    (report,) = [one for one in told if "report: undelivered" in one]
    assert report.endswith(f"{BOB}: 550 5.1.1 no such user")
    assert "  next: nothing: its provider sends no delivery reports" in told[-1]


def test_the_story_of_a_mail_that_came_in_tells_what_could_not_be_read(
    app: Flask, postbox: Postbox
) -> None:
    postbox.mails.append(mail("Hello", From="root"))
    with app.app_context():
        Email.sync_inbox()
        (found,) = received()
    told = run(app, "show", found.uuid)
    assert "  to shop@example.com from root\n" in told
    assert "  problem: its sender has no address that can be answered\n" in told
    assert "  received\n" in told
    assert "  next: nothing, it came in\n" in told


def test_the_story_of_an_email_in_doubt_names_what_decides_about_emails(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        uuid, _ = sent(app, postbox)
        with state_of(app).database.write() as connection:
            connection.execute(
                text("UPDATE communication_message SET status = 'unknown', due_at = NULL")
            )
    told = run(app, "show", uuid)
    assert f"flask communication resolve {uuid} sent|resend|drop" in told
    assert "SMS" not in told
    assert run(app, "resolve", uuid, "drop")
    assert "is failed" in run(app, "show", uuid)


def test_the_list_of_messages_shows_subjects_and_who_wrote(app: Flask, postbox: Postbox) -> None:
    postbox.mails.append(mail("Where is it?"))
    with app.app_context():
        Email(to=BOB, subject="x" * 80, body="Hi").send()
        assert "from" not in run(app, "messages").splitlines()[0]
        Email.sync_inbox()
    titles, came, ours = run(app, "messages").splitlines()
    assert titles.split() == [
        "uuid",
        "channel",
        "status",
        "to",
        "from",
        "subject",
        "created",
        "error",
    ]
    assert "shop@example.com  ann@example.com  Where is it?  " in came
    assert "x" * 49 + "…" in ours
