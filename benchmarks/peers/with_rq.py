"""Plain RQ: rq worker --worker-class rq.SimpleWorker bench, the application loaded before."""

import os

from redis import Redis
from rq import Queue

from . import deliver

queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_REDIS"]))


def put(numbers: range) -> None:
    """Enqueue."""
    queue.enqueue_many(
        [
            Queue.prepare_data(deliver, args=(number,), result_ttl=0, timeout=60)
            for number in numbers
        ]
    )
