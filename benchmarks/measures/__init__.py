"""One module a measure: ``measure(run) -> list of figures``."""

from __future__ import annotations

from dataclasses import dataclass

from ..ground import Ground


@dataclass(frozen=True)
class Run:
    """What a measure is given."""

    ground: Ground
    quick: bool = False
    databases: tuple[str, ...] = ("sqlite", "postgresql")

    def number(self, full: int, quick: int) -> int:
        """Choose a size."""
        return quick if self.quick else full

    @property
    def turns(self) -> int:
        """How often alternated measurements are taken."""
        return 1 if self.quick else 3
