"""HTML of mails: its plain text, and what of it is safe to show."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# HTML parsers take time with the square of the depth, and of the number of stray ampersands.
DEEPEST = 1_000
MOST_AMPERSANDS = 100_000
_TAG = re.compile(r"<(/?)([a-zA-Z]+)")
# These close themselves, or are closed by what follows.
_SHALLOW = frozenset("area base br col embed hr img input link meta p param source td th tr wbr".split())
_BLOCKS = frozenset(
    "address article blockquote br div h1 h2 h3 h4 h5 h6 hr li ol p pre section table tr ul".split()
)
_UNSEEN = frozenset("script style head title template".split())


def text_of(html: str) -> str:
    """Return the plain text of HTML: blocks as lines, links as ``text (address)``."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).split("\n"))
    return "\n".join(line for line in lines if line)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._unseen = 0
        self._links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        if tag in _BLOCKS:
            self.parts.append("\n")
        if tag == "a":
            self._links.append(dict(attrs).get("href"))

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN and self._unseen:
            self._unseen -= 1
        if tag in _BLOCKS:
            self.parts.append("\n")
        if tag == "a" and self._links:
            address = self._links.pop()
            if address and address.startswith(("http://", "https://", "mailto:")):
                self.parts.append(f" ({address})")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data.replace("\n", " "))


def is_tame(html: str) -> bool:
    """Tell whether HTML can be parsed in reasonable time; linear itself."""
    if html.count("&") > MOST_AMPERSANDS:
        return False
    depth = 0
    for closing, tag in _TAG.findall(html):
        if tag.lower() not in _SHALLOW:
            depth = max(0, depth - 1) if closing else depth + 1
            if depth > DEEPEST:
                return False
    return True


def skeleton(html: str) -> str:
    """Return nothing but the blocks and links of HTML, well formed: fit for :func:`text_of`."""
    import nh3

    tags = set(_BLOCKS | {"a"}) - {"address"}
    return str(nh3.clean(html, tags=tags, attributes={"a": {"href"}}, link_rel=None))
