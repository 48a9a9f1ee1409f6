"""Recipients: in which form they are kept, and in which forms a person may name them."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from ..errors import InvalidMessage
from . import addresses

# ITU-T E.164: a country code that does not begin with 0, and at most 15 digits in all.
E164 = re.compile(r"\+[1-9][0-9]{6,14}")
# What people put between digits. A line break is none of it: it may stand between two numbers.
_PUNCTUATION = re.compile(r"[ \u00a0\u2000-\u200a\u202f().\-]+")
_WITHOUT_PLUS = re.compile(r"[1-9][0-9]{6,14}")


def number(raw: Any, region: str | None = None) -> str:
    """Return a phone number in E.164 form, ``+`` and 7 to 15 digits.

    ``region`` (ISO 3166) is where a number without ``+`` belongs. Raises :class:`InvalidMessage`.
    """
    if not isinstance(raw, str):
        raise InvalidMessage({"destination": ["must be a string such as +919999911111"]})
    digits = _PUNCTUATION.sub("", raw.strip())
    if region is not None and digits.isascii() and digits.isdigit():
        digits = _national(digits, region)
    if not E164.fullmatch(digits):
        raise InvalidMessage(
            {"destination": ["must be a phone number in international form, such as +919999911111"]}
        )
    return digits


def _national(digits: str, region: str) -> str:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return digits
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def meant(raw: str, region: str | None = None) -> list[str]:
    """Return the forms in which messages may keep the recipient that a person names, the best first.

    Numbers may be spaced, and addresses have a name before them. What is neither (a short code, a
    name that wrote to us) is meant as it is.
    """
    plain = raw.strip()
    if "@" in plain:
        try:
            plain = addresses.bare(addresses.mailbox("destination", plain))
        except InvalidMessage:
            return [plain]
        return list(dict.fromkeys((plain, plain.lower())))
    digits = _PUNCTUATION.sub("", plain)
    try:
        return list(dict.fromkeys((number(plain, region), plain)))
    except InvalidMessage:
        return [f"+{digits}", digits] if _WITHOUT_PLUS.fullmatch(digits) else [plain]


def spelled(connection: Connection, raw: str, region: str | None = None) -> list[str]:
    """Return all forms in which messages do keep it: of an address, however it was capitalised."""
    forms = meant(raw, region)
    if "@" not in forms[0]:
        return forms
    found = connection.scalars(_SPELLED, {"address": forms[0]})
    return list(dict.fromkeys((*forms, *found)))


# The first recipient, which a message itself names, is among them.
_SPELLED = text(
    "SELECT DISTINCT address FROM communication_recipient WHERE lower(address) = lower(:address)"
)
