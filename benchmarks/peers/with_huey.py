"""Huey: huey_consumer benchmarks.peers.with_huey.huey -k thread -w 50."""

import os

from huey import RedisHuey

from . import deliver

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"], results=False)
send = huey.task()(deliver)


def put(numbers: range) -> None:
    """Enqueue."""
    for number in numbers:
        send(number)
