"""The statuses and moves of a message as data."""

import itertools

import pytest

from flask_communication.delivery import outbox, outcomes, reports
from flask_communication.storage.models import status
from tests.support import status_page


def test_every_status_says_what_it_means_and_what_its_due_at_is() -> None:
    for one in status.TABLE:
        assert one.meaning.endswith("."), one.name
        assert bool(one.due_at) == (one.name in status.OPEN), one.name
        assert not (one.final and one.due_at), one.name
    assert len(status.STATUSES) == len(status.TABLE)


def test_the_numbers_in_the_meanings_are_those_of_the_code() -> None:
    told = {one.name: one.due_at for one in status.TABLE}
    assert f" {outbox.LEASE:.0f} seconds" in told["queued"]
    assert f" {outbox.LEASE:.0f} seconds" in told["sending"]
    assert f" {reports.ASK_FOR / 3600:.0f} hours" in told["sent"]
    assert outcomes.POISON == 3
    assert "three workers" in status.MOVES["rescue_doubt"].when


def test_the_page_of_statuses_is_as_the_table_says() -> None:
    assert status_page.PAGE.read_text() == status_page.page(), (
        "run: python -m tests.support.status_page"
    )


def test_every_move_says_who_makes_it_and_when() -> None:
    for name, move in status.MOVES.items():
        assert move.when, name
        assert move.fenced == (move.by == status.CLAIMANT), name


@pytest.mark.parametrize("group", [status.SETTLE, status.DISMISS, status.RESCUE])
def test_the_moves_of_one_statement_start_from_the_same_statuses(group: tuple[str, ...]) -> None:
    assert len({status.MOVES[name].sources for name in group}) == 1


def test_a_statement_writes_only_the_targets_of_its_moves() -> None:
    assert status.sources(status.SETTLE) == {"sending"}
    assert status.targets(status.SETTLE) == {"sent", "rejected", "queued", "unknown"}
    assert status.sources(status.DISMISS) == {"queued"}
    assert status.targets(status.DISMISS) == {
        *("queued", "rejected", "held", "expired", "unknown", "sent")
    }
    assert status.sources(status.RESCUE) == {"sending"}
    assert status.targets(status.RESCUE) == {"queued", "unknown"}
    assert status.sources(["cancel", "release"]) == {"held"}


def test_a_worker_makes_no_move_but_those_of_the_statements() -> None:
    grouped = {*status.SETTLE, *status.DISMISS, *status.RESCUE, "start", "late_truth"}
    people = {name for name, move in status.MOVES.items() if move.by == status.PERSON}
    assert grouped | people == set(status.MOVES)
    assert not grouped & people


def test_every_move_stays_among_the_known_statuses() -> None:
    for name, move in status.MOVES.items():
        assert move.sources <= status.STATUSES, name
        assert move.target in status.STATUSES, name


def test_only_fenced_moves_or_people_or_truth_leave_sending() -> None:
    leaving = {
        name for name, move in status.MOVES.items() if "sending" in move.sources and not move.fenced
    }
    assert leaving == {"late_truth", "rescue_repeat", "rescue_doubt"}


def test_a_cancelled_message_is_never_started() -> None:
    assert status.MOVES["start"].sources == {"queued", "sending"}
    assert status.MOVES["start"].fenced


def test_nothing_but_a_person_sends_a_finished_message_again() -> None:
    again = {
        name
        for name, move in status.MOVES.items()
        if move.target == "queued" and move.sources & status.FINAL
    }
    assert again == {"retry", "force_retry"}


@pytest.mark.parametrize("current", sorted(status.STATUSES))
@pytest.mark.parametrize("reported", sorted(status.REPORTED))
def test_a_report_never_moves_a_message_backwards(reported: str, current: str) -> None:
    if status.applies(reported, current):
        assert status.RANK[reported] > status.RANK[current]


def test_reports_in_any_order_end_at_the_same_status() -> None:
    for told in (["sent", "delivered", "read"], ["undelivered", "sent", "delivered"]):
        ends = set()
        for order in itertools.permutations(told):
            current = status.SENT
            for reported in order:
                current = reported if status.applies(reported, current) else current
            ends.add(current)
        assert len(ends) == 1


@pytest.mark.parametrize("current", sorted(status.STATUSES))
@pytest.mark.parametrize("reported", sorted(status.REPORTED))
def test_the_threshold_of_the_sql_says_what_applies_says(reported: str, current: str) -> None:
    allowed = status.RANK[reported] >= status.THRESHOLD[current]
    assert allowed == status.applies(reported, current)


def test_an_old_bad_report_does_not_stop_a_second_try() -> None:
    assert not status.applies("undelivered", "queued")
    assert not status.applies("undelivered", "sending")
    assert status.applies("delivered", "queued")


def test_a_word_that_is_no_report_applies_to_nothing() -> None:
    assert not any(status.applies("cancelled", current) for current in status.STATUSES)
