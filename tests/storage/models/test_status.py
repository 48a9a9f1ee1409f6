"""The state machine as data."""

import itertools

import pytest

from flask_communication.storage.models import status


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
    for reports in (["sent", "delivered", "read"], ["undelivered", "sent", "delivered"]):
        ends = set()
        for order in itertools.permutations(reports):
            current = status.SENT
            for reported in order:
                current = reported if status.applies(reported, current) else current
            ends.add(current)
        assert len(ends) == 1


def test_an_old_bad_report_does_not_stop_a_second_try() -> None:
    assert not status.applies("undelivered", "queued")
    assert not status.applies("undelivered", "sending")
    assert status.applies("delivered", "queued")


def test_a_word_that_is_no_report_applies_to_nothing() -> None:
    assert not any(status.applies("cancelled", current) for current in status.STATUSES)
