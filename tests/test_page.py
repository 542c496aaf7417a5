"""The page in a real browser: it says the verdicts, complains of nothing, asks nobody."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_report import EXPERIMENT, write_all

from jaxcnn import findings, overview, page, report
from jaxcnn.page import Sheet

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # what the browser itself asks for goes nowhere
]
BROWSER = "not an origin"  # who asked, in the network log, where no page did
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[findings.Table, Path]:
    folder = tmp_path_factory.mktemp("page")
    write_all(folder / "runs")
    table = findings.collect(EXPERIMENT, folder / "runs", 'launch.py report "x" & <y>')
    report.write(table, folder / "report")
    return table, folder / "report" / "index.html"


def browse(path: Path, tmp_path: Path) -> tuple[str, list[str], list[str]]:
    """The DOM after loading, the console's lines, and every address that the page asked for."""
    log = tmp_path / "net.json"
    own = [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, *own, "--dump-dom", path.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = [
        event["params"]["url"]
        for event in json.loads(log.read_text())["events"]
        if event.get("params", {}).get("initiator", BROWSER) != BROWSER
    ]
    return done.stdout, console, asked


def text_of(dom: str) -> str:
    return " ".join(re.sub(r"<style.*?</style>|<[^>]+>", " ", dom, flags=re.S).split())


@needs_browser
def test_in_the_browser(built, tmp_path):
    table, path = built
    dom, console, asked = browse(path, tmp_path)
    assert console == [] and asked == []
    for finding in table.findings:
        assert f'class="verdict {finding.verdict.word}"' in dom
    assert "relu needs 0.39 times the steps of sigmoid to reach" in text_of(dom)
    assert "Published: 6 times fewer (K. 2012)" in text_of(dom)
    assert dom.count("<svg ") == 2


@needs_browser
def test_the_browser_test_would_notice(built, tmp_path):
    _, path = built
    text = path.read_text().replace("http-equiv", "data-off")  # without the page's own guard
    leak = '<img src="http://127.0.0.1:9/x.png"><script>console.error("oh")</script></main>'
    (tmp_path / "leaky.html").write_text(text.replace("</main>", leak))
    _, console, asked = browse(tmp_path / "leaky.html", tmp_path)
    assert any("oh" in line for line in console)
    assert any(url.startswith("http://127.0.0.1:9/") for url in asked)


@pytest.fixture(scope="module")
def overall(built) -> Path:
    table, path = built
    entry = overview.Entry("curves", table, "launch.py run & <all>", "report/index.html")
    return overview.write([entry], path.parent.parent)


@needs_browser
def test_the_overview_in_the_browser(built, overall, tmp_path):
    dom, console, asked = browse(overall, tmp_path)
    assert console == [] and asked == []
    words = [finding.verdict.word for finding in built[0].findings]
    words += [row["verdict"] for row in overview.claims().rows]
    for word in page.VERDICT_COLOURS:  # one each, and one beside the count at the top
        assert dom.count(f'class="verdict {word}"') == words.count(word) + 1
        assert f"{word} {words.count(word)}" in text_of(dom)
    assert '<a href="report/index.html">ReLU &amp; friends_train 100&nbsp;% &lt;faster&gt;' in dom
    assert "GoogLeNet has 12 times fewer parameters" in text_of(dom) and dom.count("<svg ") == 1


def test_the_overview_is_one_file_for_light_and_dark_and_narrow_screens(overall):
    text = overall.read_text()
    assert (overall.parent / "report/index.html").is_file()
    outline = Outline()
    outline.feed(text.replace('href="report/index.html"', 'href="#"'))  # its one link
    assert outline.open == [] and len(outline.ids) == len(set(outline.ids))
    assert outline.tags.count("h1") == 1 and "script" not in outline.tags
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert "currentColor" in text and "#1f2329" not in text.split("</style>")[1]
    assert "launch.py run &amp; &lt;all&gt;" in text


class Outline(HTMLParser):
    """Open and close tags must match; ids must be unique; nothing may be loaded from elsewhere."""

    VOID = {"meta", "br", "img", "link", "hr", "input"}

    def __init__(self) -> None:
        super().__init__()
        self.open, self.ids, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.append(tag)
        self.ids += [named["id"]] if "id" in named else []
        assert not {"src", "srcset", "action"} & named.keys()
        assert (named.get("href") or named.get("xlink:href") or "#").startswith("#")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_one_wellformed_file_for_light_and_dark(built):
    text = built[1].read_text()
    outline = Outline()
    outline.feed(text)
    assert outline.open == [] and len(outline.ids) == len(set(outline.ids))
    assert outline.tags.count("h1") == 1 and "script" not in outline.tags
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert "@import" not in text and "default-src 'none'" in text
    # Figures take the page's ink, so that they can be read in the dark.
    assert "currentColor" in text and "#1f2329" not in text.split("</style>")[1]


def test_everything_is_escaped(built):
    text = built[1].read_text()
    assert "<title>ReLU &amp; friends_train 100 % &lt;faster&gt;</title>" in text
    assert "launch.py report &quot;x&quot; &amp; &lt;y&gt;" in text
    assert "<faster>" not in text and "<y>" not in text


SHEET = Sheet(
    "A | b",
    ("x", "y", "z"),
    (("g", "-1", "a_b"), ("g", "2", "c"), ("h", "3", "d")),
    "lrl",
    "",
    True,
)


def test_notations_of_a_sheet():
    assert page.markdown(SHEET).splitlines() == [
        "## A \\| b",
        "",
        "| x | y | z |",
        "| --- | ---: | --- |",
        "| g | -1 | a_b |",
        "|  | 2 | c |",
        "| h | 3 | d |",
    ]
    latex = page.latex(SHEET)
    assert r"\multicolumn{2}{l}{\emph{g}} \\" in latex and r"\quad $-$1 & a\_b \\" in latex
    html = page.table(SHEET)
    assert '<th scope="row" rowspan="2">g</th>' in html and "\N{MINUS SIGN}1" in html
    assert page.in_html("2026-01-02, p < 0.05, 95 %") == ("2026-01-02, p\xa0&lt;\xa00.05, 95\xa0%")
