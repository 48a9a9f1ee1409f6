"""HTML of mails: its plain text, and what of it is safe to show."""

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
# Tags, each times the depth it stands at: what is left open may be repeated in every block that
# follows.
MOST_WORK = 3_000_000
# Where a tag, a comment or the like begins; any other "<" is text.
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
# More digits than any character's number has, which int() may refuse.
_NO_CHARACTER = re.compile(r"&#[0-9]{8,}+;?")
# What stands in these is no markup up to their end.
_RAW = {
    name: re.compile(rf"</{name}(?=[{_S}/>])", re.IGNORECASE | re.ASCII)
    for name in "script style title textarea xmp iframe noembed noframes noscript".split()
}
# These close themselves, or are closed by what follows.
_SHALLOW = frozenset(
    "area base br col embed hr img input li link meta p param source td th tr wbr".split()
)
# A closing tag does not reach past these.
_WALLS = frozenset(
    "applet button marquee object select svg math table template"
    " annotation-xml desc foreignobject mi mn mo ms mtext".split()
)
# In these, what is markup and what is not follows rules of its own.
_FOREIGN = frozenset(("svg", "math", "select"))
_BLOCKS = frozenset(
    "address article aside blockquote br caption dd div dl dt figcaption figure footer form h1 h2 "
    "h3 h4 h5 h6 header hr li main nav ol option p pre section table tr ul".split()
)
_CELLS = frozenset(("td", "th"))
_UNSEEN = frozenset("script style title template iframe noembed noframes".split())


class _Tag(NamedTuple):
    name: str
    closes: bool
    attributes: Mapping[str, str]
    # Of the attributes as they are written, many may have one name.
    written: int


def _pieces(html: str, *, scripts: bool = False) -> Iterator[str | _Tag]:
    """Yield texts and tags as a browser cuts them, comments left out; linear, whatever it is given.

    With ``scripts`` it is a browser that runs them, to which noscript is no markup.
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
            # What is never closed reaches to the end.
            if closed is None:
                return
            place = closed.end()
    yield html[place:]


def _tag(html: str, start: int) -> tuple[_Tag | None, int]:
    """Return the tag that begins at ``start``, None if it never ends, and the place after it."""
    name = _NAME.match(html, start)
    assert name is not None
    attributes: dict[str, str] = {}
    count, place = 0, name.end()
    while found := _ATTRIBUTE.match(html, place):
        # A quote that nothing closes.
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

    Blocks are lines, cells have a space between them, links are ``text (address)``, pictures their
    ``alt``.
    """
    reader = _Reader()
    for piece in _pieces(html):
        if isinstance(piece, str):
            reader.read(_unescaped(piece))
        elif piece.closes:
            reader.close(piece.name)
        else:
            reader.open(piece)
    reader.end_line()
    return "\n".join(reader.lines).strip("\n")


class _Reader:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._line: list[str] = []
        self._unseen = ""
        self._kept = 0
        self._begins = False
        self._address = ""
        self._shown: list[str] = []

    def open(self, tag: _Tag) -> None:
        if self._unseen:
            return
        if tag.name in _BLOCKS:
            self.end_line(keep=tag.name == "br" and self._kept > 0)
        if tag.name in _UNSEEN:
            self._unseen = tag.name
        elif tag.name == "pre":
            self._kept += 1
            self._begins = True
        elif tag.name in _CELLS:
            self._line.append(" ")
        elif tag.name == "img":
            self._say(_unescaped(tag.attributes.get("alt", "")))
        elif tag.name == "a":
            self._leave_link()
            self._address = _unescaped(tag.attributes.get("href", "")).strip()
            self._shown = []

    def close(self, name: str) -> None:
        if self._unseen:
            self._unseen = "" if name == self._unseen else self._unseen
            return
        if name in _BLOCKS:
            self.end_line()
        if name == "pre":
            self._kept = max(0, self._kept - 1)
        elif name == "a":
            self._leave_link()

    def read(self, text: str) -> None:
        if self._unseen:
            return
        if not self._kept:
            self._say(text.replace("\n", " "))
            return
        first, *more = text.replace("\r\n", "\n").split("\n")
        # A line break at the beginning does not show.
        if first or not self._begins:
            self._say(first)
        elif more:
            self._say(more.pop(0))
        self._begins = False
        for line in more:
            self.end_line(keep=True)
            self._say(line)

    def end_line(self, *, keep: bool = False) -> None:
        text = "".join(self._line)
        self._line = []
        text = text.rstrip() if self._kept else " ".join(text.split())
        if text or (keep and self.lines):
            self.lines.append(text)

    def _say(self, text: str) -> None:
        self._line.append(text)
        self._shown.append(text)

    def _leave_link(self) -> None:
        address, self._address = self._address, ""
        shown = " ".join("".join(self._shown).split())
        said = {address.rstrip("/"), address.removeprefix("mailto:")}
        if address.startswith(("http://", "https://", "mailto:")) and shown.rstrip("/") not in said:
            self._line.append(f" ({address})" if shown else f" {address}")


def is_tame(html: str) -> bool:
    """Tell whether HTML can be parsed in reasonable time; linear itself."""
    if html.count("&") > MOST_AMPERSANDS:
        return False
    nest, has_data = _Nest(), "<![CDATA[" in html
    last, work = "", 0
    for piece in _pieces(html, scripts=True):
        if isinstance(piece, str):
            # A script in a comment in a script ends elsewhere.
            if last == "script" and "<!--" in piece and "<script" in piece.lower():
                return False
            continue
        if piece.closes:
            nest.close(piece.name)
        else:
            nest.open(piece.name)
            if nest.foreign and (has_data or piece.name in _RAW):
                return False
        last = piece.name
        work += nest.depth
        if nest.depth > DEEPEST or work > MOST_WORK or piece.written > MOST_ATTRIBUTES:
            return False
    return True


class _Nest:
    """How deep a parser could stand: never less than it does."""

    def __init__(self) -> None:
        self.depth = 0
        self.foreign = 0
        # What is open, apart for each wall.
        self._walls: list[tuple[str, Counter[str]]] = [("", Counter())]

    def open(self, name: str) -> None:
        if name in _WALLS:
            self._walls.append((name, Counter()))
            self.foreign += name in _FOREIGN
        elif self.foreign or name not in _SHALLOW:
            self._walls[-1][1][name] += 1
        else:
            return
        self.depth += 1

    def close(self, name: str) -> None:
        wall, opened = self._walls[-1]
        if name == wall:
            self._walls.pop()
            self.depth -= opened.total() + 1
            self.foreign -= name in _FOREIGN
        elif opened[name] > 0:
            opened[name] -= 1
            self.depth -= 1


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
    "color background-color font font-family font-size font-style font-weight line-height "
    "text-align text-decoration text-indent text-transform letter-spacing vertical-align "
    "white-space direction width height max-width max-height min-width min-height margin "
    "margin-top margin-right margin-bottom margin-left padding padding-top padding-right "
    "padding-bottom padding-left border border-top border-right border-bottom border-left "
    "border-color border-style border-width border-collapse border-spacing border-radius display "
    "list-style-type table-layout".split()
)


def safe(html: str, pictures: Mapping[str, str], *, remote: bool = False) -> str:
    """Return what of HTML is safe to show: no scripts, forms, frames, or styles that reach outside.

    ``pictures`` are addresses (data:) by Content-ID, for what the mail shows in place (cid:).
    Pictures from elsewhere, by which a sender learns who reads when, stay only if ``remote``. Give
    it only HTML that :func:`is_tame`.
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
