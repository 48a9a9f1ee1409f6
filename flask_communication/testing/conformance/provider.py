"""``ProviderConformance``: the tests that every provider should pass."""

from __future__ import annotations

from .failures import Failures
from .promises import Promises
from .sending import Sending


class ProviderConformance(Promises, Sending, Failures):
    """Tests of a provider; its author makes a subclass.

    Each runs on the object and over the contract.

    Give two fixtures: ``provider``, which makes it, and ``config``, with which the vendor accepts
    (its secrets must not appear again). Where the vendor is reached by HTTP, make the provider
    with the fixture ``vendor``, an httpx transport, and set ``accepts``. Class attributes:

    * ``channels``: of ``sms`` and ``email``, those to test; a subclass for each, if they differ.
    * ``accepts``: what the vendor answers when it accepts a message: ``(status, body)``,
      ``(status, body, headers)``, an exception class of httpx, or a function from request to
      response, such as a method of this name. None: the vendor is not played.
    * ``answers``: name -> (answer, outcome); an outcome is Refused, Denied, NotSent or
      OutcomeUnknown, ``NotSent("", retry_after=7)``, or ``Accepted(ref)``.
    * ``recipients``: number or address -> outcome class, where it depends on the recipient.
    * ``reports``: name -> (answer, [(ref, status), …]) when asked about these and "1", "2", "3".
    * ``hostile``: as ``answers``; begin with ``ProviderConformance.hostile`` to change a row.
    * ``destinations``: channel -> a recipient that is accepted.
    """
