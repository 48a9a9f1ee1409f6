"""What may stand in the header of an email: a line of text, and an address."""

from __future__ import annotations

import re

# Controls, ends of lines, marks that turn the text around them, halves of characters, and what is
# never to be a character (Unicode §23.7). What is only unknown to this Python may be a new emoji.
_NO_CHARACTERS = "".join(
    chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)
)
NOT_IN_A_LINE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef"
    + _NO_CHARACTERS
    + "]"
)
_LONGEST_DOMAIN = 255


def is_line(text: str) -> bool:
    """Tell whether a text is one line of characters that people write, joiners and hard spaces among them."""
    return NOT_IN_A_LINE.search(text) is None


def canonical(address: str) -> str:
    """Return an address with its domain in small ASCII letters (RFC 5891).

    ValueError if that cannot be.
    """
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return f"{local}{at}{domain.lower()}"
    if len(domain) > _LONGEST_DOMAIN:
        raise ValueError("it is too long")
    import idna

    # The standard library's codec is of 2003, and takes straße.example for strasse.example.
    return f"{local}{at}{idna.encode(domain, uts46=True).decode()}"
