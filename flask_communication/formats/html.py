"""HTML of emails: to plain text, and sanitized to be shown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote

# HTML parsers take time with the square of the depth, of the attributes of a tag, and of stray
# ampersands.
DEEPEST = 1_000
MOST_ATTRIBUTES = 200
MOST_AMPERSANDS = 100_000
# The sum of the depths of all tags: a parser may repeat what is left open in every block after it.
MOST_WORK = 3_000_000
# Where a tag or a comment begins; any other "<" is text.
_BEGINNING = re.compile(r"<(?:/?[a-zA-Z]|[!?/])")
_CLOSE = re.compile(">")
_COMMENT_END = re.compile(r"--!?>")
# HTML has fewer spaces than Unicode.
_S = r"\t\n\f\r "
_NAME = re.compile(rf"</?([^{_S}/>]+)")
_ATTRIBUTE = re.compile(
    rf"[{_S}/]*+([^{_S}/>][^{_S}/>=]*+)"
    rf"""(?:[{_S}]*+=[{_S}]*+(?:"([^"]*+)"|'([^']*+)'|(["'])|([^{_S}>]++))?)?"""
)
_END = re.compile(rf"[{_S}/]*+>")
# More digits than any code point has; int() may refuse them.
_NO_CHARACTER = re.compile(r"&#[0-9]{8,}+;?")
# The content of these elements is no markup.
_RAW = {
    name: re.compile(rf"</{name}(?=[{_S}/>])", re.IGNORECASE | re.ASCII)
    for name in "script style title textarea xmp iframe noembed noframes noscript".split()
}
# These elements have no content, or the next tag closes them.
_SHALLOW = frozenset(
    "area base br col embed hr img input li link meta p param source td th tr wbr".split()
)
# A closing tag closes nothing outside of these.
_SCOPES = frozenset(
    "applet button marquee object select svg math table template"
    " annotation-xml desc foreignobject mi mn mo ms mtext".split()
)
# In these elements a parser tells markup from text by other rules.
_FOREIGN = frozenset(("svg", "math", "select"))
_BLOCKS = frozenset(
    "address article aside blockquote br caption dd div dl dt figcaption figure footer form h1 h2 "
    "h3 h4 h5 h6 header hr li main nav ol option p pre section table tr ul".split()
)
_CELLS = frozenset(("td", "th"))
_HIDDEN = frozenset("script style title template iframe noembed noframes".split())


class _Tag(NamedTuple):
    name: str
    closes: bool
    attributes: Mapping[str, str]
    # How many attributes are written; several may have one name.
    attribute_count: int


def _pieces(html: str, *, scripts: bool = False) -> Iterator[str | _Tag]:
    """Yield texts and tags as a browser separates them, without comments; in linear time.

    With ``scripts``, as a browser that runs scripts: the content of noscript is no markup.
    """
    place = 0
    while found := _BEGINNING.search(html, place):
        if found.start() > place:
            yield html[place : found.start()]
        if found[0][-1].isalpha():
            tag, place = _tag(html, found.start())
            if tag is None:
                return
            yield tag
            if tag.name in _RAW and not tag.closes and (scripts or tag.name != "noscript"):
                ahead = _RAW[tag.name].search(html, place)
                until = ahead.start() if ahead else len(html)
                yield html[place:until]
                place = until
        else:
            ending = _COMMENT_END if html.startswith("<!--", found.start()) else _CLOSE
            closed = ending.search(html, found.start() + 2)
            # A comment that is never closed is all the rest.
            if closed is None:
                return
            place = closed.end()
    yield html[place:]


def _tag(html: str, start: int) -> tuple[_Tag | None, int]:
    """Return the tag at ``start``, None if it never ends, and the position after it."""
    name = _NAME.match(html, start)
    assert name is not None
    attributes: dict[str, str] = {}
    count, place = 0, name.end()
    while found := _ATTRIBUTE.match(html, place):
        # A quotation mark that is never closed.
        if found[4]:
            return None, len(html)
        attributes.setdefault(found[1].lower(), found[2] or found[3] or found[5] or "")
        count, place = count + 1, found.end()
    end = _END.match(html, place)
    closes = html.startswith("</", start)
    return (
        (_Tag(name[1].lower(), closes, attributes, count), end.end()) if end else (None, len(html))
    )


def _unescaped(raw: str) -> str:
    return unescape(_NO_CHARACTER.sub("\ufffd", raw))


def text_of(html: str) -> str:
    """Return the plain text of HTML, in linear time.

    A block is a line, cells have a space between them, a link is ``text (address)``, and an image
    is its ``alt``.
    """
    writer = _TextWriter()
    for piece in _pieces(html):
        if isinstance(piece, str):
            writer.write(_unescaped(piece))
        elif piece.closes:
            writer.close(piece.name)
        else:
            writer.open(piece)
    writer.end_line()
    return "\n".join(writer.lines).strip("\n")


class _TextWriter:
    """Makes lines of plain text from texts and tags."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._line: list[str] = []
        # The hidden element that we are in.
        self._hidden = ""
        # How many <pre> are open, and whether the last one has no text yet.
        self._pre_depth = 0
        self._pre_begins = False
        # Of the open link, its address and its text.
        self._address = ""
        self._link_text: list[str] = []

    def open(self, tag: _Tag) -> None:
        if self._hidden:
            return
        if tag.name in _BLOCKS:
            self.end_line(keep=tag.name == "br" and self._pre_depth > 0)
        if tag.name in _HIDDEN:
            self._hidden = tag.name
        elif tag.name == "pre":
            self._pre_depth += 1
            self._pre_begins = True
        elif tag.name in _CELLS:
            self._line.append(" ")
        elif tag.name == "img":
            self._append(_unescaped(tag.attributes.get("alt", "")))
        elif tag.name == "a":
            self._end_link()
            self._address = _unescaped(tag.attributes.get("href", "")).strip()
            self._link_text = []

    def close(self, name: str) -> None:
        if self._hidden:
            self._hidden = "" if name == self._hidden else self._hidden
            return
        if name in _BLOCKS:
            self.end_line()
        if name == "pre":
            self._pre_depth = max(0, self._pre_depth - 1)
        elif name == "a":
            self._end_link()

    def write(self, text: str) -> None:
        if self._hidden:
            return
        if not self._pre_depth:
            self._append(text.replace("\n", " "))
            return
        first, *more = text.replace("\r\n", "\n").split("\n")
        # A line break at the beginning of <pre> is not shown.
        if first or not self._pre_begins:
            self._append(first)
        elif more:
            self._append(more.pop(0))
        self._pre_begins = False
        for line in more:
            self.end_line(keep=True)
            self._append(line)

    def end_line(self, *, keep: bool = False) -> None:
        text = "".join(self._line)
        self._line = []
        text = text.rstrip() if self._pre_depth else " ".join(text.split())
        if text or (keep and self.lines):
            self.lines.append(text)

    def _append(self, text: str) -> None:
        self._line.append(text)
        self._link_text.append(text)

    def _end_link(self) -> None:
        address, self._address = self._address, ""
        shown = " ".join("".join(self._link_text).split())
        same = {address.rstrip("/"), address.removeprefix("mailto:")}
        if address.startswith(("http://", "https://", "mailto:")) and shown.rstrip("/") not in same:
            self._line.append(f" ({address})" if shown else f" {address}")


def is_safe_to_parse(html: str) -> bool:
    """Tell whether an HTML parser takes reasonable time for this; takes linear time itself."""
    if html.count("&") > MOST_AMPERSANDS:
        return False
    depth, has_data = _Depth(), "<![CDATA[" in html
    last, work = "", 0
    for piece in _pieces(html, scripts=True):
        if isinstance(piece, str):
            # A script in a comment in a script may end elsewhere than we think.
            if last == "script" and "<!--" in piece and "<script" in piece.lower():
                return False
            continue
        if piece.closes:
            depth.close(piece.name)
        else:
            depth.open(piece.name)
            if depth.foreign and (has_data or piece.name in _RAW):
                return False
        last = piece.name
        work += depth.now
        if depth.now > DEEPEST or work > MOST_WORK or piece.attribute_count > MOST_ATTRIBUTES:
            return False
    return True


class _Depth:
    """An upper bound of the number of elements that a parser has open."""

    def __init__(self) -> None:
        self.now = 0
        self.foreign = 0
        # The open elements of each scope.
        self._scopes: list[tuple[str, Counter[str]]] = [("", Counter())]

    def open(self, name: str) -> None:
        if name in _SCOPES:
            self._scopes.append((name, Counter()))
            self.foreign += name in _FOREIGN
        elif self.foreign or name not in _SHALLOW:
            self._scopes[-1][1][name] += 1
        else:
            return
        self.now += 1

    def close(self, name: str) -> None:
        scope, opened = self._scopes[-1]
        if name == scope:
            self._scopes.pop()
            self.now -= opened.total() + 1
            self.foreign -= name in _FOREIGN
        elif opened[name] > 0:
            opened[name] -= 1
            self.now -= 1


# Image types that run no scripts, and how such a file begins. Images of a mail are put into the
# page itself (data:), because a sandboxed frame sends no cookie with a request.
IMAGE_SIGNATURES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}
_DATA = re.compile(rf"data:(?:{'|'.join(IMAGE_SIGNATURES)});base64,[A-Za-z0-9+/=\s]*")
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
# By these a style fetches something, or hides that it does.
_FETCHING = ("url", "expression", "image", "import", "\\", "/*")
_STYLES = frozenset(
    "color background-color font font-family font-size font-style font-weight line-height "
    "text-align text-decoration text-indent text-transform letter-spacing vertical-align "
    "white-space direction width height max-width max-height min-width min-height margin "
    "margin-top margin-right margin-bottom margin-left padding padding-top padding-right "
    "padding-bottom padding-left border border-top border-right border-bottom border-left "
    "border-color border-style border-width border-collapse border-spacing border-radius display "
    "list-style-type table-layout".split()
)


def sanitize(html: str, images: Mapping[str, str], *, remote: bool = False) -> str:
    """Return HTML without scripts, forms, frames, and styles that fetch something.

    ``images`` are addresses (data:) by Content-ID, for the images within the mail (cid:). Remote
    images tell the sender who reads the mail and when; they stay only if ``remote``. Give it only
    HTML that :func:`is_safe_to_parse`.
    """
    import nh3

    def keep(_tag: str, name: str, value: str) -> str | None:
        if name == "href":
            return value if _LINK.match(value.strip()) else None
        if name == "src":
            return _image(value.strip(), images, remote=remote)
        if name == "style":
            return None if any(sign in value.lower() for sign in _FETCHING) else value
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


def _image(source: str, images: Mapping[str, str], *, remote: bool) -> str | None:
    if source[:4].lower() == "cid:":
        return images.get(unquote(source[4:]))
    if source[:5].lower() == "data:":
        return source if _DATA.fullmatch(source) else None
    return source if remote and source[:7].lower() in ("http://", "https:/") else None


def is_image(content_type: str, content: bytes) -> bool:
    """Tell whether a file is an image without scripts, by its type and its first bytes."""
    signature = IMAGE_SIGNATURES.get(content_type.lower())
    return signature is not None and content.startswith(signature)
