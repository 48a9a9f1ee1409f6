"""Everything this package raises, and what to do about it.

CommunicationError
├── SettingError                a COMMUNICATION_* setting is wrong
├── NotInitialised              the app never met init_app, or no app is active
├── DatabaseError
│   ├── NotUpgraded             our tables are missing: flask communication upgrade
│   └── SessionConflict         our own transaction would deadlock with, or commit, the caller's
├── InvalidMessage              a message the caller must mend (errors: field -> reasons)
├── InvalidConfig               a configuration the operator must mend (errors: field -> reasons)
├── InvalidQuery                a filter or cursor that cannot be understood
├── NotFound
│   ├── ConfigNotFound
│   ├── MessageNotFound
│   ├── FileNotFound            an email has no such file
│   ├── SuppressionNotFound
│   └── TokenNotFound
├── Conflict
│   ├── IdempotencyConflict     the key was used for another body
│   ├── NotRetryable            a retry could ring twice
│   ├── NotCancellable          it has left, or may have
│   ├── NotReleasable           only a `held` message can be released
│   └── NotResolvable           only an `unknown` message needs a person's word
├── ProviderNotFound            no provider of this name is installed, configured or mounted
└── ProviderError               what a provider raises instead of returning Accepted
    ├── NotSent                 certainly did not leave: we try again later
    ├── Refused                 the provider said no: we do not try again
    │   └── Denied              it said no to us, not to the message: the configuration is stopped
    └── OutcomeUnknown          may have left: never repeated blindly
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Reasons = Mapping[str, Sequence[str]]


class CommunicationError(Exception):
    """The base of every exception of this package."""


class SettingError(CommunicationError, ValueError):
    """Raised at ``init_app`` for a COMMUNICATION_* setting that cannot be used."""


class NotInitialised(CommunicationError, RuntimeError):
    """Raised when no application that met ``Communication.init_app`` is active."""


class DatabaseError(CommunicationError, RuntimeError):
    """The base of what can be wrong with our use of the host's database."""


class NotUpgraded(DatabaseError):
    """Raised when our tables are missing or old; run ``flask communication upgrade``."""


class SessionConflict(DatabaseError):
    """Raised when a transaction of our own would deadlock with, or commit, the caller's."""


class _Invalid(CommunicationError, ValueError):
    def __init__(self, errors: Reasons | str) -> None:
        self.errors: Reasons = {"_": [errors]} if isinstance(errors, str) else errors
        super().__init__("; ".join(_sentence(field, why) for field, why in self.errors.items()))


def _sentence(field: str, reasons: Sequence[str]) -> str:
    said = " ".join(str(reason) for reason in reasons)
    return said if field == "_" else f"{field}: {said}"


class InvalidMessage(_Invalid):
    """Raised for a message that cannot be accepted; ``errors`` maps fields to reasons."""


class InvalidConfig(_Invalid):
    """Raised for a configuration that cannot be stored; ``errors`` maps fields to reasons."""


class InvalidQuery(_Invalid):
    """Raised for a filter, limit or cursor that cannot be understood."""


class NotFound(CommunicationError, LookupError):
    """The base of "there is no such row"."""


class ConfigNotFound(NotFound):
    """Raised when no enabled configuration answers to the key, or none is the default."""


class MessageNotFound(NotFound):
    """Raised when no message has this uuid."""


class FileNotFound(NotFound):
    """Raised when an email has no such file, or its files were removed."""


class SuppressionNotFound(NotFound):
    """Raised when the recipient is not suppressed for this sender."""


class TokenNotFound(NotFound):
    """Raised when no access token has this id."""


class Conflict(CommunicationError):
    """The base of "not in the state the message is in now"."""


class IdempotencyConflict(Conflict):
    """Raised when an idempotency key returns with another body."""


class NotRetryable(Conflict):
    """Raised when sending again could ring twice; ``force=True`` takes that risk knowingly."""


class NotCancellable(Conflict):
    """Raised when a message has left, or may have."""


class NotReleasable(Conflict):
    """Raised when a message is not ``held``, and so there is nothing to release."""


class NotResolvable(Conflict):
    """Raised when a message is not ``unknown`` and so needs no person's decision."""


class ProviderNotFound(CommunicationError, LookupError):
    """Raised when ``provider_pkg_name`` leads to no provider."""


class ProviderError(CommunicationError):
    """The base of what a provider raises when a call did not end in *accepted*.

    ``code`` is the vendor's own error code, ``http_status`` the status of its answer, if any.
    ``only_this`` says that it is about this message alone (its recipient's network, its text) and
    tells nothing about how well the provider is.
    """

    def __init__(
        self,
        reason: str,
        *,
        code: str | None = None,
        http_status: int | None = None,
        only_this: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.http_status = http_status
        self.only_this = only_this


class NotSent(ProviderError):
    """Raised when the message certainly did not leave; ``retry_after`` seconds are waited."""

    def __init__(
        self,
        reason: str,
        *,
        code: str | None = None,
        http_status: int | None = None,
        retry_after: float | None = None,
        only_this: bool = False,
    ) -> None:
        super().__init__(reason, code=code, http_status=http_status, only_this=only_this)
        self.retry_after = retry_after


class Refused(ProviderError):
    """Raised when the provider said no, and would say no again.

    ``opted_out`` says why: the recipient wants nothing from this sender, and goes on our list.
    """

    def __init__(
        self,
        reason: str,
        *,
        code: str | None = None,
        http_status: int | None = None,
        only_this: bool = False,
        opted_out: bool = False,
    ) -> None:
        # Who wants nothing from us says nothing about others.
        super().__init__(
            reason, code=code, http_status=http_status, only_this=only_this or opted_out
        )
        self.opted_out = opted_out

    @property
    def denies_us(self) -> bool:
        """Whether it would say so to any message of ours, as with a wrong password."""
        return self.http_status in (401, 402, 403) and not self.only_this


class Denied(Refused):
    """Raised when the provider refuses us whatever we send: wrong password, no balance, banned.

    Nothing more is sent by the configuration until somebody changes it; its fallbacks go on. A
    :class:`Refused` with the HTTP status 401, 402 or 403 counts as one.
    """

    denies_us = True


class OutcomeUnknown(ProviderError):
    """Raised when the message may have left and nobody can tell."""
