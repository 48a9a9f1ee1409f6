"""The short form of ``make chaos``: workers killed and paused under load, and nothing lost or
doubled.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.chaos.run import is_good, plans, rehearse

PLANS = plans(long=False)
KILLS: list[int] = []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "plan", PLANS, ids=lambda plan: f"{plan.db}-{'idempotent' if plan.idempotent else 'plain'}"
)
def test_killed_and_paused_workers_lose_nothing_and_double_nothing(plan: object) -> None:
    found = rehearse(plan)  # type: ignore[arg-type]
    print(json.dumps(found))
    assert (found["lost"], found["doubled"], found["hidden"]) == (0, 0, 0)
    assert found["messages"] == plan.messages  # type: ignore[attr-defined]
    if found["provider"] == "idempotent":
        assert found["unknown"] == found["poisoned"] <= 1
    else:
        assert found["unknown"] < found["messages"] / 3
    assert is_good(found)
    KILLS.append(found["kills"])


def test_the_short_form_kills_eighty_workers() -> None:
    assert sum(plan.kills for plan in PLANS) >= 80
    assert not KILLS or [plan.kills for plan in PLANS][: len(KILLS)] == KILLS


@pytest.mark.timeout(300)
def test_a_provider_that_breaks_its_promise_shows() -> None:
    liar = next(plan for plan in PLANS if plan.idempotent and plan.db == "sqlite")
    found = rehearse(replace(liar, lies=True, redis=False, faults=0.2, messages=80, kills=4))
    print(json.dumps(found))
    assert found["doubled"] > 0
    assert not is_good(found)
