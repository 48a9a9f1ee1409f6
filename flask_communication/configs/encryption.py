"""Encryption of secrets in the database: Fernet, with the host's keys, bound to the row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InvalidConfig, SettingError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

SEALED = "sealed:"


class Vault:
    """Encrypts and decrypts dictionaries; the first key encrypts, every key decrypts."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)

    @cached_property
    def _fernet(self) -> MultiFernet | None:
        # Imported when it is needed: it is our slowest import.
        from cryptography.fernet import Fernet, MultiFernet

        return MultiFernet([Fernet(key) for key in self._keys]) if self._keys else None

    def seal(self, values: Mapping[str, Any], label: str) -> str:
        """Encrypt ``values`` for the row that ``label`` names; no other row can use the text.

        Raises :class:`InvalidConfig` when there is no key to encrypt with.
        """
        if self._fernet is None:
            raise InvalidConfig(
                "secrets are only stored encrypted; set COMMUNICATION_ENCRYPTION_KEYS to a list "
                "with a key from: flask communication generate-key"
            )
        # Fernet has no associated data, so the label travels inside.
        plain = json.dumps([label, dict(values)]).encode()
        return SEALED + self._fernet.encrypt(plain).decode()

    def open(self, sealed: str, label: str) -> dict[str, Any]:
        """Decrypt what :meth:`seal` returned for ``label``; plain JSON is only parsed.

        Raises :class:`SettingError` when no key decrypts it.
        """
        if not sealed.startswith(SEALED):
            plain: dict[str, Any] = json.loads(sealed)
            return plain
        found, values = json.loads(self._decrypt(sealed.removeprefix(SEALED), label))
        if found != label:
            raise SettingError(
                f"the secrets of {label} were moved there from {found}; store them again"
            )
        opened: dict[str, Any] = values
        return opened

    def _decrypt(self, token: str, label: str) -> bytes:
        from cryptography.fernet import InvalidToken

        try:
            if self._fernet is None:
                raise InvalidToken
            return self._fernet.decrypt(token.encode())
        except InvalidToken:
            raise SettingError(
                f"no key in COMMUNICATION_ENCRYPTION_KEYS opens the secrets of {label}; add the "
                "key they were written with at the end of the list, or store them again"
            ) from None
