"""What may stand in the header of an email: a line of text, and an address."""

from __future__ import annotations

import unicodedata

# What turns the text around it, and makes a name look like another.
_TURNS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
# Controls, halves of characters, what nobody has assigned, and other ends of lines.
_LONGEST_DOMAIN = 255
_NO_TEXT = frozenset(("Cc", "Cs", "Cn", "Co", "Zl", "Zp"))


def is_line(text: str) -> bool:
    """Tell whether a text is one line of characters that people write, joiners and hard spaces among them."""
    return text.isprintable() or not any(
        sign in _TURNS or unicodedata.category(sign) in _NO_TEXT for sign in text
    )


def canonical(address: str) -> str:
    """Return an address with its domain in small ASCII letters (RFC 5891); ValueError if that cannot be."""
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return f"{local}{at}{domain.lower()}"
    if len(domain) > _LONGEST_DOMAIN:
        raise ValueError("it is too long")
    import idna

    # The standard library's codec is of 2003, and takes straße.example for strasse.example.
    return f"{local}{at}{idna.encode(domain, uts46=True).decode()}"
