"""The site: every page is there, every link leads somewhere, nothing comes from elsewhere, every public name has its entry."""
import re
from html.parser import HTMLParser
from importlib import import_module
from urllib.parse import unquote, urlsplit

import pytest

from mixcut.pages import pages_of, without_network, write_site

pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "out"
    write_site(folder)
    return folder


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.parts, self.names, self.silent = [], [], set(), 0
        self.feed(text)

    def handle_starttag(self, tag, given):
        given = dict(given)
        self.names |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self.silent += tag == "img" and not given.get("alt")
        for name in ("src", "href"):
            if tag in ("script", "img", "link", "iframe", "source") and given.get(name) and given.get("rel") not in ("canonical", "next", "prev"):
                self.parts.append(given[name])


def test_every_page_of_the_plan_is_there(site):
    for title, pages in pages_of().items():
        for page in [pages] if isinstance(pages, str) else pages.values():
            assert (site / re.sub(r"\.(md|ipynb)$", ".html", page)).is_file(), (title, page)


def test_every_link_leads_somewhere(site):
    read = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    broken, checked = [], 0
    for path, page in read.items():
        for link in page.links + page.parts:
            url = urlsplit(link)
            if url.scheme or url.netloc or link.startswith(("data:", "/")) and path.name == "404.html":
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            checked += 1
            if not target.is_file() or url.fragment and target in read and unquote(url.fragment) not in read[target].names:
                broken.append((str(path.relative_to(site)), link))
    assert not broken, broken[:20]
    assert checked > 500


def test_every_picture_has_words(site):
    silent = {path.name: count for path in site.rglob("*.html") if (count := Links(path.read_text(encoding="utf-8")).silent)}
    assert not silent


def test_nothing_comes_from_elsewhere(site):
    for path in site.rglob("*.html"):
        outside = [part for part in Links(path.read_text(encoding="utf-8")).parts if re.match(r"(https?:)?//", part)]
        assert not outside, (path.name, outside)


@pytest.mark.parametrize("name", list(pages_of()["API"]))
def test_every_public_name_has_its_entry(site, name):
    page, module = (site / "api" / f"{name.split('.')[1]}.html").read_text(encoding="utf-8"), import_module(name)
    for symbol in module.__all__:
        if callable(getattr(module, symbol)) and not symbol.startswith("_"):
            assert f">{symbol}<" in page, symbol


def test_pages_keep_their_own_parts():
    own = '<link rel="stylesheet" href="../assets/main.css"><script src="../assets/bundle.js"></script><a href="https://example.org">there</a>'
    assert without_network(own) == own
    assert without_network('<link href="https://fonts.example/css" rel="stylesheet">') == ""
