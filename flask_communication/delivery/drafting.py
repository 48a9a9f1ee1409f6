"""The checks of texts, by the path that they had: they are those of ``formats.text``."""

from __future__ import annotations

from ..formats.text import line, moment, storable, text

__all__ = ["line", "moment", "storable", "text"]
