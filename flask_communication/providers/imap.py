from collections.abc import Mapping
from typing import Any

from .base import Inbox


def fetch(cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]) -> Inbox:
    raise NotImplementedError
