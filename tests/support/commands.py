"""Run ``flask communication …`` in an application."""

from __future__ import annotations

from typing import Any

from flask import Flask


def run(app: Flask, *words: str, expect: int = 0, **kwargs: Any) -> str:
    """Run a command and return its output; its exit code must be ``expect``."""
    result = app.test_cli_runner().invoke(args=["communication", *words], **kwargs)
    assert result.exit_code == expect, result.output
    return result.output
