"""Email by others: python -m benchmarks.peers.mailing NAME NUMBER FILE_BYTES.

NAME is that of a function ``by_NAME``.

Each sends so many mails, of 5 kB of text and HTML and a file of so many bytes (0: none), to the
sink, and prints how many seconds that took.
"""

from __future__ import annotations

import os
import smtplib
import socket
import sys
import time
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from .mailing_text import FROM, HTML, TEXT, TO, file_of

_begun = time.monotonic()
PORT = int(os.environ["BENCH_SMTP"])


def built(number: int, size: int) -> EmailMessage:
    """Write a mail with the standard library."""
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"], mail["Subject"] = FROM, TO, "Your order"
    mail["Message-ID"] = f"<{number}@example.com>"
    mail.set_content(TEXT)
    mail.add_alternative(HTML, subtype="html")
    if size:
        mail.add_attachment(
            file_of(size), maintype="application", subtype="pdf", filename="bill.pdf"
        )
    return mail


def by_smtplib(number: int, size: int) -> None:
    """One connection, every mail written anew."""
    with smtplib.SMTP("127.0.0.1", PORT, local_hostname="bench") as line:
        for one in range(number):
            line.send_message(built(one, size))


def by_pipelined(number: int, size: int) -> None:
    """The limit: bytes written before, envelope and mail in as few packets as RFC 2920 allows."""
    mail = built(0, size).as_bytes(policy=SMTP).replace(b"\r\n.", b"\r\n..") + b".\r\n"
    with socket.create_connection(("127.0.0.1", PORT)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = line.makefile("rb")
        replies.readline()
        line.sendall(b"EHLO bench\r\n")
        while replies.readline()[3:4] == b"-":
            pass
        envelope = f"MAIL FROM:<{FROM}>\r\nRCPT TO:<{TO}>\r\nDATA\r\n".encode()
        for _ in range(number):
            line.sendall(envelope)
            for _ in range(3):
                replies.readline()
            line.sendall(mail)
            replies.readline()


def by_mailman(number: int, size: int) -> None:
    """Flask-Mailman: one connection for all."""
    from flask import Flask
    from flask_mailman import EmailMultiAlternatives, Mail

    app = Flask("bench")
    app.config.update(
        MAIL_SERVER="127.0.0.1", MAIL_PORT=PORT, MAIL_USE_TLS=False, MAIL_DEFAULT_SENDER=FROM
    )
    Mail(app)
    with app.app_context(), app.extensions["mailman"].get_connection() as connection:
        for _ in range(number):
            mail = EmailMultiAlternatives("Your order", TEXT, FROM, [TO], connection=connection)
            mail.attach_alternative(HTML, "text/html")
            if size:
                mail.attach("bill.pdf", file_of(size), "application/pdf")
            mail.send()


def by_post_office(number: int, size: int) -> None:
    """django-post-office, tuned: batches of 500, ten threads.

    The rows are made before the clock runs.
    """
    mail, contents = _django(), None
    if size:
        from django.core.files.base import ContentFile

        contents = {"bill.pdf": ContentFile(file_of(size))}
    settings: dict[str, Any] = {"subject": "Your order", "message": TEXT, "html_message": HTML}
    for _ in range(number):
        mail.send(TO, FROM, attachments=contents, **settings)
    global _begun
    _begun = time.monotonic()
    mail.send_queued_mail_until_done(processes=1)


def _django() -> Any:
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        DATABASES={"default": _database(os.environ["BENCH_DATABASE"])},
        INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
        EMAIL_BACKEND="post_office.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=PORT,
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        MEDIA_ROOT=os.environ["BENCH_MEDIA"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        POST_OFFICE={
            "BATCH_SIZE": 500,
            "THREADS_PER_PROCESS": 10,
            "LOG_LEVEL": 0,
            "CELERY_ENABLED": False,
        },
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from post_office import mail

    return mail


def _database(url: str) -> dict[str, Any]:
    from sqlalchemy import make_url

    where = make_url(url)
    if where.get_backend_name() == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": where.database}
    server = {"HOST": where.host, "PORT": where.port, "USER": where.username}
    return {"ENGINE": "django.db.backends.postgresql", "NAME": where.database, **server}


if __name__ == "__main__":
    globals()[f"by_{sys.argv[1]}"](int(sys.argv[2]), int(sys.argv[3]))
    print(time.monotonic() - _begun)
