"""Count the segments of an SMS: GSM-7 and UCS-2 (3GPP TS 23.038, TS 23.040)."""

from __future__ import annotations

from typing import NamedTuple

# The GSM 7-bit default alphabet, and the characters of two septets, escape included.
BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED = frozenset("\f^{}\\[~]|€")

# Units of a single segment, and of each of several, which have a header.
GSM_7 = (160, 153)
UCS_2 = (70, 67)
# The header counts segments in one octet.
MOST_SEGMENTS = 255


class Estimate(NamedTuple):
    """The size of a text: ``units`` are septets in GSM-7 and 16-bit units in UCS-2.

    ``remaining`` units are left in the last segment; ``offending`` are the characters that force
    UCS-2, each once, in order.
    """

    encoding: str
    segments: int
    units: int
    remaining: int
    offending: list[str]


def estimate(text: str) -> Estimate:
    """Count the segments of a text as the network counts them."""
    offending = [sign for sign in dict.fromkeys(text) if sign not in BASIC | EXTENDED]
    if offending:
        return _count(
            "UCS-2", [len(sign.encode("utf-16-be")) // 2 for sign in text], UCS_2, offending
        )
    return _count("GSM-7", [2 if sign in EXTENDED else 1 for sign in text], GSM_7, offending)


def _count(
    encoding: str, costs: list[int], sizes: tuple[int, int], offending: list[str]
) -> Estimate:
    single, joined = sizes
    units = sum(costs)
    if units <= single:
        return Estimate(encoding, 1, units, single - units, offending)
    segments, used = 1, 0
    for cost in costs:
        # A character of two units is never divided.
        if used + cost > joined:
            segments, used = segments + 1, 0
        used += cost
    return Estimate(encoding, segments, units, joined - used, offending)
