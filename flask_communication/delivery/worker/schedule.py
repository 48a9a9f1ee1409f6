"""When a dispatcher looks for work next, and how much it claims at once."""

from __future__ import annotations

import time

CLAIM_AT_MOST = 1000
# With free slots and no work known, look for new work this often; a nudge ends the wait at once.
LOOK_EVERY = 0.2
# While much is waiting here already, look this often for what is more urgent.
LOOK_URGENTLY = 0.05
RESCUE_EVERY = 5.0


class Schedule:
    """The clocks of one dispatcher (monotonic seconds), and the size of its next claim."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._claimed_at = time.monotonic()
        self._look_at = 0.0
        self._urgent_at = 0.0
        self._rescue_at = 0.0
        # Work that is due at the beginning is sent first: its requests get away before the rest.
        self._tidy_at = time.monotonic() + LOOK_EVERY
        self.claim_size = slots

    def look_now(self) -> None:
        """Look for new work at the next turn."""
        self._look_at = 0.0

    def pause(self) -> None:
        """Look neither for work nor for stranded messages for a while: the database is away."""
        self._look_at = self._rescue_at = time.monotonic() + RESCUE_EVERY

    @property
    def may_claim(self) -> bool:
        """Whether it is time to look for new work."""
        return time.monotonic() >= self._look_at

    @property
    def may_claim_urgent(self) -> bool:
        """Whether it is time to look for what is more urgent than what waits here."""
        return time.monotonic() >= self._urgent_at

    @property
    def may_tidy(self) -> bool:
        """Whether the beginning is over, so that rescues and reports have their turn."""
        return time.monotonic() >= self._tidy_at

    def claimed(self, count: int) -> None:
        """Choose the next claim's size so that what it brings is sent before the next look."""
        now = time.monotonic()
        lasted, self._claimed_at = now - self._claimed_at, now
        if count < self.claim_size:
            self.claim_size, self._look_at = self._slots, now + LOOK_EVERY
        elif lasted < LOOK_EVERY:
            self.claim_size = min(CLAIM_AT_MOST, self.claim_size * 2)
        elif lasted > 3 * LOOK_EVERY:
            self.claim_size = max(self._slots, self.claim_size // 2)

    def claimed_urgent(self) -> None:
        """Set when to look for urgent messages again."""
        self._urgent_at = time.monotonic() + LOOK_URGENTLY

    def take_rescue(self) -> bool:
        """Tell whether it is time to rescue stranded messages, and set when it is again."""
        now = time.monotonic()
        if now < self._rescue_at:
            return False
        self._rescue_at = now + RESCUE_EVERY
        return True
