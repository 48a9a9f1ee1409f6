"""The mail that everybody sends."""

TEXT = "Hello Ann, thank you for your order. It is on its way to you now.\n" * 38
HTML = f"<p>{TEXT}</p>"
FROM, TO = "shop@example.com", "ann@example.com"


def file_of(size: int) -> bytes:
    """Return so many bytes that no two neighbours of are alike."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]
