"""The tests that every provider should pass."""

from __future__ import annotations

from .failures import Trouble
from .promises import Promises
from .sending import Sending


class ProviderConformance(Promises, Sending, Trouble):
    """Tests of a provider, for its author to subclass: on the object, and over the HTTP contract.

    Give two fixtures: ``provider``, which makes it, and ``config``, with which the vendor accepts
    (its secrets are the canaries that must not be seen again). Where the vendor is reached by HTTP,
    make the provider with the fixture ``vendor``, an httpx transport, and set ``accepts``. Class
    attributes:

    * ``channels``: of ``sms`` and ``email``, those to test; a subclass for each, if they differ.
    * ``accepts``: what the vendor answers when it takes a message: ``(status, body)``, ``(status,
    body,
      headers)``, an exception class of httpx, or a function from request to response, such as a
      method of this name. None: the vendor is not played.
    * ``answers``: name -> (answer, outcome); an outcome is Refused, Denied, NotSent or
    OutcomeUnknown,
      ``NotSent("", retry_after=7)``, or ``Accepted(ref)``.
    * ``recipients``: number or address -> outcome class, where the vendor goes by the recipient.
    * ``reports``: name -> (answer, [(ref, status), …]) when asked about these and "1", "2", "3".
    * ``hostile``: as ``answers``; begin with ``ProviderConformance.hostile`` to change a row.
    * ``destinations``: channel -> a recipient that is accepted.
    """
