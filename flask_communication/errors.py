"""The exceptions of this package, in one tree.

CommunicationError
├── SettingError                a COMMUNICATION_* setting is wrong
├── NotInitialised              init_app was not called, or no app is active
├── DatabaseError
│   ├── NotUpgraded             our tables are missing: flask communication upgrade
│   └── SessionConflict         our own transaction would deadlock with, or commit, the caller's
├── InvalidMessage              a message the caller must correct (errors: field -> reasons)
├── InvalidConfig               a configuration the operator must correct (errors: field -> reasons)
├── InvalidQuery                a filter, limit or cursor that is not valid
├── NotFound
│   ├── ConfigNotFound
│   ├── MessageNotFound
│   ├── FileNotFound            an email has no such file
│   ├── SuppressionNotFound
│   └── TokenNotFound
├── Conflict
│   ├── IdempotencyConflict     the key was used for another message
│   ├── NotRetryable            a retry could send the message twice
│   ├── NotCancellable          it was sent, or may have been
│   ├── NotReleasable           only a `held` message can be released
│   └── NotResolvable           only an `unknown` message needs a decision
├── ProviderNotFound            no provider of this name is installed, configured or mounted
└── ProviderError               what a provider raises instead of returning Accepted
    ├── NotSent                 certainly not sent: we try again later
    ├── Refused                 the provider refused the message: we do not try again
    │   └── Denied              it refuses us whatever we send: the configuration is stopped
    └── OutcomeUnknown          may have been sent: never repeated blindly
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Reasons = Mapping[str, Sequence[str]]


class CommunicationError(Exception):
    """The base of every exception of this package."""


class SettingError(CommunicationError, ValueError):
    """Raised at ``init_app`` for a COMMUNICATION_* setting that cannot be used."""


class NotInitialised(CommunicationError, RuntimeError):
    """Raised when no initialised application is active (``Communication.init_app``)."""


class DatabaseError(CommunicationError, RuntimeError):
    """The base of errors in our use of the host's database."""


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
    """Raised for a filter, limit or cursor that is not valid."""


class NotFound(CommunicationError, LookupError):
    """The base of errors for a row that does not exist."""


class ConfigNotFound(NotFound):
    """Raised when no enabled configuration has the key, or none is the default."""


class MessageNotFound(NotFound):
    """Raised when no message has this uuid."""


class FileNotFound(NotFound):
    """Raised when an email has no such file, or its files were removed."""


class SuppressionNotFound(NotFound):
    """Raised when the recipient is not suppressed for this sender."""


class TokenNotFound(NotFound):
    """Raised when no access token has this id."""


class Conflict(CommunicationError):
    """The base of errors for what the present state of a row does not allow."""


class IdempotencyConflict(Conflict):
    """Raised when an idempotency key is used again for another message."""


class NotRetryable(Conflict):
    """Raised when a retry could send the message twice; ``force=True`` takes that risk."""


class NotCancellable(Conflict):
    """Raised when a message was sent, or may have been."""


class NotReleasable(Conflict):
    """Raised when a message is not ``held``."""


class NotResolvable(Conflict):
    """Raised when a message is not ``unknown``, and so needs no decision."""


class ProviderNotFound(CommunicationError, LookupError):
    """Raised when no provider has the name ``provider_pkg_name``."""


class ProviderError(CommunicationError):
    """The base of what a provider raises when it did not accept a message.

    ``code`` is the vendor's error code, ``http_status`` the status of its answer, if any.
    ``only_this`` says that the reason is this message alone (its recipient's network, its text), so
    that it is no failure of the provider.
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
    """Raised when the message was certainly not sent; try again after ``retry_after`` seconds."""

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
    """Raised when the provider refuses the message, and would refuse it again.

    ``opted_out`` says that the recipient wants nothing from this sender, and so is suppressed.
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
        # That one recipient opted out is no failure of the provider.
        super().__init__(
            reason, code=code, http_status=http_status, only_this=only_this or opted_out
        )
        self.opted_out = opted_out

    @property
    def denies_us(self) -> bool:
        """Whether the provider would refuse any message of ours, as with a wrong password."""
        return self.http_status in (401, 402, 403) and not self.only_this


class Denied(Refused):
    """Raised when the provider refuses us whatever we send: wrong password, no balance, banned.

    The configuration is stopped until somebody changes it; its fallbacks send instead. A
    :class:`Refused` with the HTTP status 401, 402 or 403 counts as one.
    """

    denies_us = True


class OutcomeUnknown(ProviderError):
    """Raised when the message may have been sent, and the provider did not say."""
