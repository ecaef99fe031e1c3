"""The built documentation: every link leads somewhere, nothing comes from elsewhere, pages read well with no network.

`make docs` leaves it in build/docs; MINIFCN_SITE names another folder. Links are read by a parser over all files; what
only a browser knows (formulas drawn, errors in its console, the width of a phone) is asked of Chromium.
"""

import functools
import os
import pathlib
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from browser import Chromium

ROOT = pathlib.Path(__file__).parent.parent.parent
PHONE = 360


@pytest.fixture(scope="module")
def site() -> pathlib.Path:
    folder = pathlib.Path(os.environ.get("MINIFCN_SITE") or ROOT / "build" / "docs")
    if not (folder / "docs" / "index.html").is_file():
        pytest.skip("the documentation is not built here: make docs")
    return folder


# ---- links, by a parser ------------------------------------------------------------------------------------------


LOADED = ("stylesheet", "icon", "shortcut icon", "preload", "modulepreload", "manifest", "prefetch", "preconnect")


class Links(HTMLParser):
    """What a page can be entered at (`anchors`), where it sends a reader (`links`) and what it loads (`loads`)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if "http-equiv" in given and "url=" in given.get("content", ""):
            self.links.append(given["content"].split("url=")[1])
        if tag in ("a", "area", "link") and "href" in given and given.get("rel") not in LOADED:
            self.links.append(given["href"])
        elif tag in ("link", "use", "image") and "href" in given:
            self.loads.append(given["href"])
        self.loads += [given[name] for name in ("src", "poster", "data") if name in given]
        self.loads += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]


@functools.cache
def parsed(page: pathlib.Path) -> Links:
    return Links(page.read_text(encoding="utf-8"))


def broken(page: pathlib.Path, link: str, *, loaded: bool) -> str:
    """What is wrong with a link of a page; "" if nothing is."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https", "mailto"):
        return "comes from elsewhere" if loaded else ""
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc or parts.path.startswith("/"):
        return "only leads somewhere on one machine"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file():
        return "leads nowhere"
    if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in parsed(target).anchors:
        fresh = "explorer" in target.parts  # there the fragment is a state, and no place
        return "" if fresh else "names a place that is not there"
    return ""


def wrong_links(folder: pathlib.Path) -> list[str]:
    found = []
    for page in sorted(folder.rglob("*.html")):
        links = parsed(page)
        asked = [(link, False) for link in links.links] + [(link, True) for link in links.loads]
        for link, loaded in asked:
            if fault := broken(page, link, loaded=loaded):
                found.append(f"{page.relative_to(folder)}: {link} {fault}")
    for sheet in sorted(folder.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        for link in re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", text):
            if not link.startswith(("data:", "#")) and (fault := broken(sheet, link, loaded=True)):
                found.append(f"{sheet.relative_to(folder)}: {link} {fault}")
    return found


def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere(site: pathlib.Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20 and sum(len(parsed(page).links) for page in pages) > 1000
    assert wrong_links(site) == []


def test_a_link_to_an_explorable_keeps_the_state_that_it_shows(site: pathlib.Path) -> None:
    for page in ("docs/explorables.html", "tutorials/07_upsampling.html"):
        assert any("explorer/convolution.html#kind=transposed&" in link for link in parsed(site / page).links)


def test_the_explorables_lead_to_the_course_and_the_film_of_a_step_is_among_them(site: pathlib.Path) -> None:
    assert "explorer/step.html" in parsed(site / "docs" / "explorables.html").links
    pages = [page for page in (site / "docs" / "explorer").glob("*.html") if page.name != "step.html"]
    for page in pages:
        links = parsed(page).links
        assert "../course.html" in links and any(link.startswith("../../tutorials/") for link in links), page.name
    assert len(pages) == 4


def test_names_of_functions_and_tests_are_links(site: pathlib.Path) -> None:
    shown = parsed(site / "docs" / "paper-map.html").links
    assert sum(link.startswith("api.html#minifcn.") for link in shown) > 36
    text = (site / "docs" / "paper-map.html").read_text(encoding="utf-8")
    cells = " ".join(re.findall(r"<table.*?</table>", text, re.DOTALL))
    assert len(re.findall("<code", cells)) == len(re.findall(r"<a [^>]*><code", cells)) > 120, "each name is a link"
    tests = {link for link in shown if link.startswith("../tests/test_")}
    assert len(tests) > 40 and all(re.search(r"#L-[1-9]\d*$", link) for link in tests)


def test_a_broken_link_is_noticed(tmp_path: pathlib.Path) -> None:
    good = '<a href="b.html#there"><a href="#here"><p id="here"><img src="x.png"><a href="https://example.org/">'
    (tmp_path / "x.png").write_bytes(b"")
    (tmp_path / "b.html").write_text('<h1 id="there"></h1><a href="a.html">')
    (tmp_path / "a.html").write_text(good)
    (tmp_path / "s.css").write_text("a { background: url(x.png) } b { background: url(data:,) }")
    assert wrong_links(tmp_path) == []
    parsed.cache_clear()
    bad = '<a href="c.html"><a href="b.html#away"><a href="#away"><img src="y.png"><a href="file:///x"><a href="/x">'
    loads = '<script src="https://example.org/a.js"></script><link rel="stylesheet" href="//example.org/a.css">'
    (tmp_path / "a.html").write_text(good + bad + loads)
    (tmp_path / "s.css").write_text("@import 'https://example.org/b.css'; a { background: url('z.png') }")
    assert len(wrong_links(tmp_path)) == 6 + 2 + 2
    parsed.cache_clear()


# ---- pages, by a browser -----------------------------------------------------------------------------------------

READY = "window.MathJax?.startup ? MathJax.startup.promise.then(() => true) : true"
COUNTS = """({
    formulas: document.querySelectorAll(".math").length,
    drawn: document.querySelectorAll(".math mjx-container").length,
    faulty: [...document.querySelectorAll("[data-mml-node=merror]")].map((node) => node.textContent.slice(0, 60)),
    missing: [...document.images].filter((image) => !image.naturalWidth).map((image) => image.src),
})"""
# What sticks out of a page too narrow for it: the first few elements whose right edge lies outside, unless something
# around them scrolls.
WIDE = """(() => {
    const scrolls = (node) => node && node !== document.body &&
        (["auto", "scroll", "hidden"].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
    const out = (node) => node.getBoundingClientRect().right > innerWidth + 1 && !scrolls(node);
    const all = [...document.querySelectorAll("main *, article *")];
    return all.filter(out).slice(0, 3).map((node) => node.outerHTML.slice(0, 90));
})()"""


def faults(chromium: Chromium, path: pathlib.Path) -> list[str]:
    """What is wrong with one page, at the width of a desk and of a phone."""
    page = chromium.page()
    page.open(path.as_uri())
    page.run(READY)
    counts = page.run(COUNTS)
    found = [f"the console says: {line}" for line in page.complaints]
    found += [f"asks for {url}" for url in page.requests if not url.startswith("file:")]
    if counts["drawn"] < counts["formulas"]:
        found.append(f"{counts['formulas'] - counts['drawn']} of {counts['formulas']} formulas are not drawn")
    found += [f"a formula that MathJax cannot read: {formula}" for formula in counts["faulty"]]
    found += [f"no picture in {source}" for source in counts["missing"]]
    page.size(PHONE, 740)
    if (width := page.run("document.documentElement.scrollWidth")) > PHONE:
        found.append(f"is {width} wide on a phone of {PHONE}: {page.run(WIDE)}")
    page.close()
    return found


def test_every_page_reads_well_without_a_network(site: pathlib.Path, chromium: Chromium) -> None:
    pages = [*sorted(site.glob("docs/*.html")), *sorted(site.glob("tutorials/*.html")), site / "search.html"]
    assert len(pages) > 12
    wrong = {page.relative_to(site).as_posix(): fault for page in pages if (fault := faults(chromium, page))}
    assert wrong == {}


def test_formulas_are_there_to_be_drawn(site: pathlib.Path) -> None:
    """Were `.math` renamed, the test above would find nothing to draw."""
    assert 'class="math' in (site / "docs" / "theory.html").read_text(encoding="utf-8")


BAD = """<!DOCTYPE html><script src="https://example.org/a.js"></script><img src="none.png">
<div class="math">\\[x\\]</div><div style="width: 900px">wide</div><script>console.error("planted")</script>"""


def test_a_bad_page_is_noticed(chromium: Chromium, tmp_path: pathlib.Path) -> None:
    (tmp_path / "bad.html").write_text(BAD, encoding="utf-8")
    said = " ".join(faults(chromium, tmp_path / "bad.html"))
    for fault in (
        "planted",
        "asks for https://example.org/a.js",
        "formulas are not drawn",
        "no picture in",
        "wide on a phone",
    ):
        assert fault in said, said


def test_the_start_page_leads_on_and_the_site_finds_words(site: pathlib.Path, chromium: Chromium) -> None:
    page = chromium.page()
    page.open((site / "index.html").as_uri())
    page.wait_for("Page.loadEventFired")  # of the page it leads to
    assert page.run("location.pathname").endswith("docs/index.html")
    page.open((site / "search.html").as_uri() + "?q=stride")
    found = """new Promise((done) => { const look = (left) => {
        const hits = document.querySelectorAll("#search-results li").length;
        hits > 2 || !left ? done(hits) : setTimeout(look, 200, left - 1); }; look(50); })"""
    assert page.run(found) > 2
    page.close()
