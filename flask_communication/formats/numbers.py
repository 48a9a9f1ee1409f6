"""Parse phone numbers into E.164 form (ITU-T E.164).

Numbers are written with the punctuation that people use, and with or without ``+``. A *region*
(ISO 3166, such as "IN") says where a number without ``+`` belongs.
"""

from __future__ import annotations

import re

from ..errors import InvalidMessage
from . import addresses

EXAMPLE = "+919999911111"
FEWEST_DIGITS = 7
MOST_DIGITS = 15
# What people write between digits. A line break may stand between two numbers, so it is not here.
_PUNCTUATION = re.compile(r"[ \u00a0\u2000-\u200a\u202f().\-]+")
_OTHER = re.compile(r"[^0-9]")
# A country code does not begin with 0.
_INTERNATIONAL = re.compile(rf"\+[1-9][0-9]{{{FEWEST_DIGITS - 1},{MOST_DIGITS - 1}}}")
# A sender of fewer digits is a short code.
_FEWEST_OF_SENDER = 8


def parse_number(raw: object, region: str | None = None) -> str:
    """Return a recipient's number in E.164 form, ``+`` and 7 to 15 digits.

    Raises :class:`InvalidMessage` that names the character or the rule that is wrong.
    """
    if not isinstance(raw, str):
        raise InvalidMessage({"destination": [f"must be a string such as {EXAMPLE}"]})
    compact = compacted(raw)
    if region is not None and _is_digits(compact):
        compact = _with_phonenumbers(compact, region, only_valid=False) or compact
    if not _INTERNATIONAL.fullmatch(compact):
        why = _wrong(compact, region)
        raise InvalidMessage(
            {
                "destination": [
                    f"must be a phone number in international form, such as {EXAMPLE}: {why}"
                ]
            }
        )
    return compact


def parse_sender(raw: str, region: str | None = None) -> str:
    """Return a sender's number in E.164 form; a short code or a name is returned unchanged.

    Providers write numbers with and without ``+``, and some write them as in ``region``.
    """
    compact = compacted(raw)
    if _INTERNATIONAL.fullmatch(compact):
        return compact
    if not _is_digits(compact) or not _FEWEST_OF_SENDER <= len(compact) <= MOST_DIGITS:
        return raw
    for number, home in ((f"+{compact}", None), (compact, region)) if region is not None else ():
        found = _with_phonenumbers(number, home, only_valid=True)
        if found is not None:
            return found
    return f"+{compact}" if _INTERNATIONAL.fullmatch(f"+{compact}") else raw


def candidates(raw: str, region: str | None = None) -> list[str]:
    """Return how the recipient that a person searches for may be stored, the likeliest first.

    A number may be spaced, and an address may have a name before it. A short code or a name is
    returned unchanged.
    """
    plain = raw.strip()
    if "@" in plain:
        try:
            plain = addresses.bare(addresses.mailbox("destination", plain))
        except InvalidMessage:
            return [plain]
        return list(dict.fromkeys((plain, plain.lower())))
    try:
        return list(dict.fromkeys((parse_number(plain, region), plain)))
    except InvalidMessage:
        digits = compacted(plain)
        return [f"+{digits}", digits] if _INTERNATIONAL.fullmatch(f"+{digits}") else [plain]


def compacted(raw: str) -> str:
    """Return a number without the spaces, dots, hyphens and parentheses between its digits."""
    return _PUNCTUATION.sub("", raw.strip())


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _with_phonenumbers(number: str, region: str | None, *, only_valid: bool) -> str | None:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    if only_valid and not phonenumbers.is_valid_number(parsed):
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def _wrong(compact: str, region: str | None) -> str:
    """Say which character or rule makes this no number."""
    digits = compact.removeprefix("+")
    other = _OTHER.search(digits)
    if other is not None:
        return _wrong_character(other[0])
    if not digits:
        return "it has no digits"
    if digits == compact:
        return _without_plus(region)
    if digits.startswith("0"):
        return "it has a 0 after the +, where the country code begins"
    return f"it has {len(digits)} digits; a number has {FEWEST_DIGITS} to {MOST_DIGITS}"


def _wrong_character(sign: str) -> str:
    if sign == "+":
        return "it has a + that is not at its beginning"
    shown = repr(sign) if sign.isprintable() else "a control character or line break"
    return f"it has {shown} (U+{ord(sign):04X}), which is no digit from 0 to 9"


def _without_plus(region: str | None) -> str:
    if region is None:
        return (
            "it begins without +; write the country code, or set COMMUNICATION_DEFAULT_REGION to "
            "the country of such numbers"
        )
    return f"it begins without +, and is no number of {region}; write the country code"
