"""Dramatiq: dramatiq benchmarks.peers.with_dramatiq --processes 1 --threads 50."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from . import deliver

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))
send = dramatiq.actor(deliver)


def put(numbers: range) -> None:
    """Enqueue."""
    for number in numbers:
        send.send(number)
