"""The site: every page is there, every link leads somewhere, nothing comes from elsewhere."""
import re
from html.parser import HTMLParser
from importlib import import_module
from urllib.parse import unquote, urlsplit

import pytest

from mixcut.pages import pages_of, write_site

pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.text, self.links, self.parts, self.names, self.words = text, [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, given):
        given = dict(given)
        self.names |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.words.append(given.get("alt"))
        if given.get("rel") not in ("canonical", "next", "prev"):
            sources = ("script", "img", "link", "iframe", "source")
            self.parts += [given[name] for name in ("src", "href") if tag in sources and given.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Path → page; the site is built once."""
    folder = tmp_path_factory.mktemp("site").resolve()
    write_site(folder)
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}, folder


def test_every_page_of_the_plan_is_there(site):
    pages, folder = site
    planned = [*pages_of()["Read"], *pages_of()["Run"], *pages_of()["API"]]
    planned += [path for report in pages_of()["Reports"] for path in report.values()]
    for name in ["index.md", *planned]:
        assert folder / re.sub(r"\.(md|ipynb)$", ".html", name) in pages, name


def test_every_link_leads_somewhere(site):
    pages, folder = site
    broken, checked = [], 0
    for path, page in pages.items():
        for link in page.links + page.parts:
            url = urlsplit(link)
            if url.scheme or url.netloc or link.startswith("/") and path.name == "404.html":
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            checked += 1
            no_place = url.fragment and target in pages and unquote(url.fragment) not in pages[target].names
            if not target.is_file() or no_place:
                broken.append((str(path.relative_to(folder)), link))
    assert not broken, broken[:20]
    assert checked > 500


def test_every_picture_has_words(site):
    for path, page in site[0].items():
        assert all(page.words), path
        if "reports" not in path.parts:
            assert not [words for words in page.words if words.startswith("No description")], path


def test_nothing_comes_from_elsewhere(site):
    for path, page in site[0].items():
        outside = [part for part in page.parts if re.match(r"(https?:)?//", part)]
        assert not outside, (path.name, outside)


def test_nothing_stands_between_a_reader_and_the_point(site):
    for path, page in site[0].items():
        code = re.sub(r"<[^>]+>", "", page.text)
        directives = re.findall(r"^#\| ?(export|hide|default_exp)", code, re.M)
        assert not directives or path.parent.name != "nbs", path


def test_every_public_name_has_its_entry(site):
    pages, folder = site
    for name in pages_of()["API"]:
        page, module = pages[folder / name.replace(".md", ".html")], import_module(f"mixcut.{name[4:-3]}")
        for symbol in module.__all__:
            assert not callable(getattr(module, symbol)) or f">{symbol}<" in page.text, symbol
