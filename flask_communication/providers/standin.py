"""Test mode: while it is on, no message leaves this process.

Each provider is replaced by a stand-in, and workers rest. The fixture ``communication_outbox``
turns it on; the code that finds a provider or starts a worker asks here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .base import Provider

_stand_ins: list[Callable[[Provider], Provider]] = []


@contextmanager
def test_mode(stand_in: Callable[[Provider], Provider]) -> Iterator[None]:
    """Turn test mode on for a while; ``stand_in`` returns the stand-in of a provider.

    Within another test mode, the inner one decides.
    """
    _stand_ins.append(stand_in)
    try:
        yield
    finally:
        _stand_ins.remove(stand_in)


def is_on() -> bool:
    """Tell whether test mode is on."""
    return bool(_stand_ins)


def in_place_of(provider: Provider) -> Provider:
    """Return the provider, or in test mode its stand-in."""
    return _stand_ins[-1](provider) if _stand_ins else provider
