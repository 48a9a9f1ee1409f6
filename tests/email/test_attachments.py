"""Attachments are read from anything, once, and never more of them than may be sent."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from flask_communication.email import attachments
from flask_communication.errors import InvalidMessage
from flask_communication.formats.files import LARGEST_FILE, File


@pytest.mark.parametrize("source", [b"x", bytearray(b"x"), memoryview(b"x"), io.BytesIO(b"x")])
def test_bytes_have_no_name_and_no_type(source: object) -> None:
    assert attachments.read(source) == (b"x", None, None)


def test_a_path_has_a_name_and_an_open_file_has_one_too(tmp_path: Path) -> None:
    path = tmp_path / "bill.pdf"
    path.write_bytes(b"x")
    assert attachments.read(path) == (b"x", "bill.pdf", None)
    with path.open("rb") as opened:
        assert attachments.read(opened) == (b"x", "bill.pdf", None)


def test_of_a_file_that_is_too_large_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as opened:
        opened.truncate(100 * LARGEST_FILE)
    content, *_ = attachments.read(path)
    assert len(content) == LARGEST_FILE + 1
    with pytest.raises(InvalidMessage, match="huge is larger than"):
        attachments.checked([File("huge", "application/octet-stream", content)])


@pytest.mark.parametrize(
    ("name", "given", "found"),
    [
        ("a.png", None, "image/png"),
        ("a.png", "image/webp", "image/webp"),
        ("a", None, "application/octet-stream"),
        ("a.eml", None, "application/octet-stream"),
        ("a", "MESSAGE/rfc822", "application/octet-stream"),
    ],
)
def test_a_content_type_is_the_given_one_or_that_of_the_name(
    name: str, given: str | None, found: str
) -> None:
    assert attachments.content_type(name, given) == found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (r"C:\temp\cv.pdf", "cv.pdf"),
        ("/etc/passwd", "passwd"),
        ("../../x", "x"),
        (" ", "attachment"),
        ("a/", "attachment"),
    ],
)
def test_a_filename_has_no_folders(given: str, found: str) -> None:
    assert attachments.filename(given) == found


def test_a_filename_that_no_header_carries_is_refused() -> None:
    for wrong in ("a\r\nBcc: eve@example.com", "x" * 256, "a\u202egnp.exe"):
        with pytest.raises(InvalidMessage, match="filename"):
            attachments.filename(wrong)
