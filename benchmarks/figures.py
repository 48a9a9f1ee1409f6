"""A figure: what was measured, against what, and whether that is enough."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

OURS = "attempts, fences, leases, retries, idempotency keys, reports"


@dataclass
class Figure:
    """The median of alternated runs.

    ``ratio`` is ours to it, and ``target`` says what that should be.
    """

    measure: str
    name: str
    database: str
    unit: str
    runs: list[float]
    guarantees: str = ""
    ratio: float | None = None
    # Such as ">= 4"; of the value itself where there is no ratio.
    target: str = ""
    value: float = field(init=False)

    def __post_init__(self) -> None:
        self.value = statistics.median(self.runs)

    @property
    def is_reached(self) -> bool | None:
        """Tell whether the target is reached; None without one."""
        if not self.target:
            return None
        sign, _, wanted = self.target.partition(" ")
        got = self.value if self.ratio is None else self.ratio
        return got >= float(wanted) if sign == ">=" else got <= float(wanted)

    def as_json(self) -> str:
        """Write one line for machines."""
        told: dict[str, Any] = asdict(self) | {"reached": self.is_reached}
        told["runs"] = [round(one, 4) for one in self.runs]
        told["value"] = round(self.value, 4)
        told["ratio"] = None if self.ratio is None else round(self.ratio, 3)
        return json.dumps(told)


def judged(figures: Sequence[Figure], targets: Mapping[str, str]) -> list[Figure]:
    """Give each figure but the first, which is ours, the ratio of ours to it, and its target by
    name.
    """
    for one in figures[1:]:
        one.ratio = figures[0].value / one.value
        one.target = targets.get(one.name, "")
    return list(figures)


def table(figures: Sequence[Figure]) -> str:
    """Write a table for people."""
    lines = [
        "| measure | database | what | median | ours to it | target | | it guarantees |",
        "|---|---|---|--:|--:|---|---|---|",
    ]
    for one in figures:
        mark = {True: "reached", False: "**missed**", None: ""}[one.is_reached]
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        lines.append(
            f"| {one.measure} | {one.database} | {one.name} | {_short(one.value)} {one.unit} | "
            f"{ratio} | {one.target} | {mark} | {one.guarantees} |"
        )
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def alternated(runs: int, takers: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Take every measurement in turn, ``runs`` times round: noise of the machine then hits all
    alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in takers}
    for turn in range(runs):
        names = list(takers) if turn % 2 == 0 else list(takers)[::-1]
        for name in names:
            taken[name].append(takers[name]())
    return taken


def versions() -> str:
    """Name what was measured."""
    peers = "celery dramatiq huey procrastinate httpx django-post-office flask-mailman"
    names = f"flask sqlalchemy psycopg rq redis {peers}".split()
    return f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {version(name)}" for name in names
    )
