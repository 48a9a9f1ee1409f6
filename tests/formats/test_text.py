"""Text is checked, cleaned and decoded by the same rules everywhere."""

from __future__ import annotations

import codecs
import encodings.aliases
from datetime import UTC, datetime, timedelta, timezone

import pytest
import webencodings.labels
from hypothesis import given
from hypothesis import strategies as st

from flask_communication.errors import InvalidMessage
from flask_communication.formats import text

# --- Check


@pytest.mark.parametrize("raw", ["", "Grüße\nan!", "x" * 10, "👩\u200d💻"])
def test_a_text_of_several_lines_is_returned_unchanged(raw: str) -> None:
    assert text.multiline("body", raw, 10) == raw


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("x" * 11, "body: must be a text of at most 10 characters"),
        (b"x", "body: must be a text"),
        ("a\ud800", "body: has half of a surrogate pair"),
        ("a\0", "body: has a NUL character"),
    ],
)
def test_a_text_that_no_database_holds_is_refused_by_name(raw: object, says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        text.multiline("body", raw, 10)


@pytest.mark.parametrize("raw", ["", "x" * 11, "a\nb", "a\u202eb", 17])
def test_a_line_is_short_printable_and_not_empty(raw: object) -> None:
    assert text.line("key", None, 10) is None
    assert text.line("key", "order 17", 10) == "order 17"
    with pytest.raises(InvalidMessage, match="key: must be 1 to 10 printable characters"):
        text.line("key", raw, 10)


def test_a_moment_is_one_in_utc() -> None:
    here = datetime(2026, 11, 23, 10, tzinfo=timezone(timedelta(hours=1)))
    found = text.moment("send_at", here)
    assert (found, found and found.tzinfo) == (datetime(2026, 11, 23, 9, tzinfo=UTC), UTC)
    assert text.moment("send_at", None) is None


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (datetime(2026, 11, 23), "time zone"),
        ("2026-11-23T10:00:00Z", "datetime"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "out of range"),
    ],
)
def test_a_moment_that_is_none_in_utc_is_refused(raw: object, says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        text.moment("send_at", raw)


# --- Clean


@given(st.text(max_size=60), st.integers(min_value=1, max_value=40))
def test_what_is_cleaned_is_short_printable_and_storable(raw: str, limit: int) -> None:
    found = text.clean(raw, limit)
    assert len(found) <= limit
    assert found.isprintable()
    found.encode()


def test_cleaning_keeps_what_a_person_can_read() -> None:
    assert text.clean("550 5.1.1 no such user") == "550 5.1.1 no such user"
    assert text.clean("Grüße\r\nvon\x00uns") == "Grüße  von uns"
    assert text.clean("x" * 600) == "x" * 500


def test_what_a_configuration_says_is_masked_longest_first_and_at_any_depth() -> None:
    config = {"key": "hunter22", "more": [{"key": "hunter2222"}, ("17", 17)], "host": None}
    said = "hunter2222 and hunter22 from 17"
    assert text.mask(said, config) == "******** and ******** from 17"
    assert text.mask(said, {}) == said


@given(st.text(alphabet=st.characters(), max_size=60))
def test_a_header_on_one_line_is_a_line(raw: str) -> None:
    assert text.is_line(text.one_line(raw))


# --- Decode

# What the WHATWG Encoding Standard decodes to nothing, and we leave to Python's codec or to UTF-8.
UNSAFE = {"replacement", "x-user-defined"}


@pytest.mark.parametrize("label", webencodings.labels.LABELS)
def test_every_label_of_browsers_is_known_in_every_spelling(label: str) -> None:
    name = webencodings.labels.LABELS[label]
    codec = text._codec(label)
    assert codec == text._codec(f" {label.upper()}\t")
    if name in UNSAFE or text._python_codec(label) == "ascii":
        return
    assert codec is not None
    assert codecs.lookup(codec)


# Pairs of a label and a character that only the codec of browsers decodes.
WIDER = [
    ("iso-8859-1", b"\x80", "€"),
    ("latin_1", b"\x80", "€"),
    ("iso8859-9", b"\x80", "€"),
    ("tis-620", b"\x80", "€"),
    ("gb2312", b"\x81\x30\x86\x30", "¸"),
    ("gbk", b"\x81\x30\x86\x30", "¸"),
    ("cp936", b"\x81\x30\x86\x30", "¸"),
    ("shift_jis", b"\x87\x40", "①"),
    ("x-sjis", b"\x87\x40", "①"),
    ("ms_kanji", b"\x87\x40", "①"),
    ("euc_kr", b"\x8c\x63", "똠"),
    ("ks_c_5601-1987", b"\x8c\x63", "똠"),
    ("big5", b"\x88\x62", "\u00ca\u0304"),
    ("x-mac-cyrillic", b"\x80", "А"),
    ("dos-874", b"\x80", "€"),
]


@pytest.mark.parametrize(("label", "raw", "meant"), WIDER)
def test_a_character_set_is_read_as_browsers_read_it(label: str, raw: bytes, meant: str) -> None:
    assert text.decode(raw, label) == (meant, True)


@pytest.mark.parametrize(
    ("label", "raw"),
    [
        ("utf-16", "中文".encode("utf-16-le")),
        ("utf-16", "Grüße".encode("utf-16-le")),
        ("utf-16", "Grüße".encode("utf-16")),
        ("utf-16be", "Grüße".encode("utf-16-be")),
        ("utf-16le", codecs.BOM_UTF16_BE + "Grüße".encode("utf-16-be")),
        ("unicode", "Grüße".encode()),
        ("unicode", "Grüße".encode("utf-16-le")),
        ("utf-7", b"Gr+APwA3w-e"),
        ("iso-2022-kr", "한국어".encode("iso-2022-kr")),
        ("hz-gb-2312", "中文".encode("hz")),
        ("cp850", "Grüße".encode("cp850")),
    ],
)
def test_unicode_and_what_browsers_do_not_know_is_read_too(label: str, raw: bytes) -> None:
    found, is_sure = text.decode(raw, label)
    assert found in ("中文", "Grüße", "한국어")
    assert is_sure


@given(
    st.binary(max_size=60),
    st.sampled_from([*webencodings.labels.LABELS, *encodings.aliases.aliases, "", "x-klingon"])
    | st.text(max_size=10),
)
def test_no_bytes_and_no_label_break_the_reader(raw: bytes, label: str) -> None:
    found, _ = text.decode(raw, label)
    text.make_storable(found).encode()


def test_a_text_from_outside_becomes_one_short_printable_line() -> None:
    assert text.mask("a\r\nb\x1b[2J\u202ec\0" + "x" * 5000).startswith("a b [2J c x")
    assert len(text.mask("x" * 5000)) == 200
