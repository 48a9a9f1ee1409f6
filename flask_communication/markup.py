"""HTML of mails: its plain text, and what of it is safe to show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import unquote

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


# Each of these is written into the page itself: a sandboxed frame sends no cookie with a request.
RASTER = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}
_DATA = re.compile(rf"data:(?:{'|'.join(RASTER)});base64,[A-Za-z0-9+/=\s]*")
_LINK = re.compile(r"(?:https?|mailto):", re.IGNORECASE)
_ATTRIBUTES = {
    "*": {"style", "dir", "lang", "title", "align", "valign"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan", "width", "height", "bgcolor"},
    "th": {"colspan", "rowspan", "width", "height", "bgcolor"},
    "tr": {"bgcolor", "height"},
    "table": {"width", "height", "border", "cellpadding", "cellspacing", "bgcolor"},
    "font": {"color", "face", "size"},
    "ol": {"start"},
}
_MORE_TAGS = frozenset("font u s strike big small tt main header footer nav".split())
# What a style reaches outside by, or hides that it does.
_REACHING = ("url", "expression", "image", "import", "\\", "/*")
_STYLES = frozenset(
    "color background-color font font-family font-size font-style font-weight line-height text-align"
    " text-decoration text-indent text-transform letter-spacing vertical-align white-space direction"
    " width height max-width max-height min-width min-height margin margin-top margin-right margin-bottom"
    " margin-left padding padding-top padding-right padding-bottom padding-left border border-top"
    " border-right border-bottom border-left border-color border-style border-width border-collapse"
    " border-spacing border-radius display list-style-type table-layout".split()
)


def safe(html: str, pictures: Mapping[str, str], *, remote: bool = False) -> str:
    """Return what of HTML is safe to show: no scripts, forms, frames, or styles that reach outside.

    ``pictures`` are addresses (data:) by Content-ID, for what the mail shows in place (cid:). Pictures from
    elsewhere, by which a sender learns who reads when, stay only if ``remote``. Give it only HTML that
    :func:`is_tame`.
    """
    import nh3

    def keep(tag: str, name: str, value: str) -> str | None:
        if name == "href":
            return value if _LINK.match(value.strip()) else None
        if name == "src":
            return _picture(value.strip(), pictures, remote=remote)
        if name == "style":
            return None if any(sign in value.lower() for sign in _REACHING) else value
        return value

    return str(
        nh3.clean(
            html,
            tags=nh3.ALLOWED_TAGS | _MORE_TAGS,
            attributes=_ATTRIBUTES,
            attribute_filter=keep,
            url_schemes={"http", "https", "mailto", "cid", "data"},
            filter_style_properties=_STYLES,
            link_rel="noopener noreferrer nofollow",
            set_tag_attribute_values={"a": {"target": "_blank"}},
        )
    )


def _picture(source: str, pictures: Mapping[str, str], *, remote: bool) -> str | None:
    if source[:4].lower() == "cid:":
        return pictures.get(unquote(source[4:]))
    if source[:5].lower() == "data:":
        return source if _DATA.fullmatch(source) else None
    return source if remote and source[:7].lower() in ("http://", "https:/") else None


def is_picture(content_type: str, content: bytes) -> bool:
    """Tell whether a file is a picture that a browser shows and never runs, by its name and its bytes."""
    mark = RASTER.get(content_type.lower())
    return mark is not None and content.startswith(mark)
