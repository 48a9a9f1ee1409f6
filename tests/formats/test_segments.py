"""How an SMS is cut and counted."""

import pytest

from flask_communication import SMS


@pytest.mark.parametrize(
    ("text", "encoding", "segments", "units"),
    [
        ("", "GSM-7", 1, 0),
        ("Hello World", "GSM-7", 1, 11),
        ("a" * 160, "GSM-7", 1, 160),
        ("a" * 161, "GSM-7", 2, 161),
        ("a" * 306, "GSM-7", 2, 306),
        ("a" * 307, "GSM-7", 3, 307),
        ("é" * 160, "GSM-7", 1, 160),
        ("€" * 80, "GSM-7", 1, 160),
        ("€" * 81, "GSM-7", 2, 162),
        ("a\r\nb", "GSM-7", 1, 4),
        ("e\u0301", "UCS-2", 1, 2),
        ("ç", "UCS-2", 1, 1),
        ("\u2019" * 70, "UCS-2", 1, 70),
        ("\u2019" * 71, "UCS-2", 2, 71),
        ("\U0001f600" * 35, "UCS-2", 1, 70),
        ("\U0001f600" * 36, "UCS-2", 2, 72),
    ],
)
def test_a_text_is_counted_as_the_network_counts_it(
    text: str, encoding: str, segments: int, units: int
) -> None:
    assert SMS.estimate(text)[:3] == (encoding, segments, units)


def test_a_sign_of_two_units_is_not_cut_in_half() -> None:
    # 152 septets and an escape pair do not fit into 153; the pair moves to the next piece.
    found = SMS.estimate("a" * 152 + "€" + "a" * 152)
    assert (found.units, found.segments) == (306, 3)


def test_the_characters_that_force_ucs_2_are_named_once_in_order() -> None:
    assert SMS.estimate("a\u2019b\u201cc\u2019").offending == ["\u2019", "\u201c"]
    assert SMS.estimate("plain").offending == []


def test_what_is_left_in_the_last_segment_is_told() -> None:
    assert SMS.estimate("a" * 10).remaining == 150
    assert SMS.estimate("a" * 161).remaining == 153 - 8
