"""``flask communication …``: the worker, the tables, and what an operator asks at three in the morning."""

from . import (
    configs,
    decisions,
    health,
    messages,
    providers,
    send,
    suppressions,
    tokens,
    upkeep,
    worker,
)
from .command import communication

__all__ = [
    "communication",
    "configs",
    "decisions",
    "health",
    "messages",
    "providers",
    "send",
    "suppressions",
    "tokens",
    "upkeep",
    "worker",
]
