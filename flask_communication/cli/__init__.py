"""``flask communication …``: the commands for operators, one module for each noun."""

from . import configs, health, messages, send, suppressions, tokens, upkeep, worker
from .command import communication

__all__ = [
    "communication",
    "configs",
    "health",
    "messages",
    "send",
    "suppressions",
    "tokens",
    "upkeep",
    "worker",
]
