"""Celery: celery -A benchmarks.peers.with_celery worker -P threads -c 50."""

import os

from celery import Celery

from . import deliver

app = Celery("bench", broker=os.environ["BENCH_REDIS"])
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = False
send = app.task(deliver, name="deliver")


def put(numbers: range) -> None:
    """Enqueue."""
    for number in numbers:
        send.delay(number)
