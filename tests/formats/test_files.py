"""Files of an email have names, types and Content-IDs that a header can carry."""

from __future__ import annotations

import pytest

from flask_communication.errors import InvalidMessage
from flask_communication.formats.files import File, checked_file, is_content_id, is_content_type
from flask_communication.providers import base


def test_the_kit_of_providers_has_the_same_file() -> None:
    assert base.File is File


@pytest.mark.parametrize(
    "kind",
    [
        "image/png",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "text/calendar; method=REQUEST; charset=utf-8",
        'text/plain;name="a b.txt"',
    ],
)
def test_a_content_type_may_have_parameters(kind: str) -> None:
    assert is_content_type(kind)
    assert checked_file(File("a", kind, b"x")).content_type == kind


@pytest.mark.parametrize(
    "kind", ["", "png", "image/", "image/png\r\nX: y", "a/b;c", "text/plain; a=ü", f"a/{'b' * 81}"]
)
def test_what_is_no_content_type_is_refused(kind: str) -> None:
    assert not is_content_type(kind)
    with pytest.raises(InvalidMessage, match="content_type"):
        checked_file(File("a", kind, b"x"))


def test_a_content_id_has_neither_spaces_nor_angle_brackets() -> None:
    assert is_content_id("logo.png@x")
    for wrong in ("", "a b", "<a>", "ü", "x" * 256, "a\r\n"):
        assert not is_content_id(wrong)
