"""What the site needs beside mkdocs.yml: changelog, settings, links out of docs/, languages, and a check of all links.

The pages are written for GitHub, where `../fun_transformer/attention.py` is a file of the repository. On the site such
a link leads to GitHub. After the build every link, picture and anchor of the HTML is looked up; nothing may come from
another server but what a reader clicks on.
"""

import dataclasses
import importlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GITHUB = "https://github.com/datawhalechina/fun-transformer"
CHANGELOG = "changelog.md"
RECIPE = ROOT / "fun_transformer" / "training" / "recipe"
SETTINGS = re.compile("<!-- settings: .*?-->")  # in api/settings.md
LINK = re.compile(r"(\]\()([^)\s]+)(\))|(^\[[^\]]+\]: )(\S+)()$", re.MULTILINE)
CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
# What a browser loads by itself when it opens a page: (tag, attribute).
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("video", "src")}
WORDS = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    NoneType: "null",
}  # of the page of settings
NOT_LOADED = {"canonical", "alternate", "prev", "next"}  # values of rel of a <link>


def on_files(files: Any, config: Any) -> Any:
    """Add CHANGELOG.md, which is outside docs/, as a page."""
    from mkdocs.structure.files import File  # the rest of this file is read without mkdocs, too

    files.append(File.generated(config, CHANGELOG, abs_src_path=str(ROOT / "CHANGELOG.md")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page whose links out of the site lead to GitHub."""
    uri = page.file.src_uri
    source = ROOT / "CHANGELOG.md" if uri == CHANGELOG else DOCS / uri
    markdown = text_for_site(markdown, source, {file.src_uri for file in files if file.inclusion.is_included()})
    return SETTINGS.sub(lambda _: settings_tables(), markdown)


def on_page_context(context: Any, page: Any, config: Any, nav: Any) -> Any:
    """Give a page the words of the theme in its own language."""
    config.theme["language"] = "zh" if page.file.src_uri.endswith(".zh.md") else "en"
    return context


def on_post_build(config: Any) -> None:
    """End the build with an error where the site has a link to nowhere, or loads something from another server."""
    if problems := find_problems(Path(config.site_dir)):
        from mkdocs.exceptions import PluginError

        raise PluginError("\n".join(problems))


def text_for_site(markdown: str, source: Path, pages: set[str]) -> str:
    """Return the text of a page with the links that it has on the site.

    Args:
        markdown: The text.
        source: The file that it is from; links are relative to it.
        pages: What the site has, as paths from docs/.
    """

    def replace(match: re.Match) -> str:
        before, link, after = (match[1] or match[4], match[2] or match[5], match[3] or match[6])
        return f"{before}{site_link(link, source, pages)}{after}"

    parts = CODE.split(markdown)  # every second part is code
    return "".join(part if i % 2 else LINK.sub(replace, part) for i, part in enumerate(parts))


def site_link(link: str, source: Path, pages: set[str]) -> str:
    """Return a link as it is on the site: to a page of it, or to a file on GitHub."""
    path, sign, anchor = link.partition("#")
    if not path or urlsplit(link).scheme:
        return link
    target = (source.parent / path).resolve()
    if not target.is_relative_to(ROOT) or not target.exists():
        return link  # mkdocs says that it is broken
    if target == ROOT / "CHANGELOG.md":
        uri = CHANGELOG
    elif target.is_relative_to(DOCS):
        uri = target.relative_to(DOCS).as_posix()
    else:
        uri = ""
    if uri not in pages:
        kind = "tree" if target.is_dir() else "blob"
        return f"{GITHUB}/{kind}/main/{target.relative_to(ROOT).as_posix()}{sign}{anchor}"
    here = source.parent if source.is_relative_to(DOCS) else DOCS
    up = "../" * len(here.relative_to(DOCS).parts)
    return f"{up}{uri}{sign}{anchor}"


def settings_tables() -> str:
    """Return the settings of a recipe as tables, one for each section, without importing torch."""
    package = ModuleType("recipe")
    package.__path__ = [str(RECIPE)]
    sys.modules["recipe"] = package  # its __init__.py, and that of fun_transformer, are not run
    arguments = importlib.import_module("recipe.arguments")
    return "\n\n".join(section_tables(arguments.RunArguments, ""))


def section_tables(section: type, prefix: str) -> list[str]:
    """Return the table of a section of a recipe, and then those of the sections in it."""
    hints, rows, inner = get_type_hints(section), [], []
    for field in dataclasses.fields(section):
        name, kind = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(kind):
            inner += section_tables(kind, name + ".")
        elif "help" in field.metadata:
            chosen = field.metadata.get("auto", "")
            default = f"`auto`: {chosen}" if chosen else f"`{shown_default(field)}`"
            cells = [f"`{name}`", shown_type(kind), default, field.metadata["help"]]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    header = "| setting | type | default | meaning |\n| --- | --- | --- | --- |\n"
    return [f"## {prefix[:-1] or 'The run'}\n\n{header}" + "\n".join(rows), *inner] if rows else inner


def shown_default(field: dataclasses.Field) -> str:
    """Return the default of a setting as a recipe writes it."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return value if isinstance(value, str) and value else json.dumps(value)


def shown_type(kind: Any) -> str:
    """Return the type of a setting in words: its choices, or what may be written."""
    if kind in WORDS:
        return WORDS[kind]
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(shown_type(option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    return "list"


class Page(HTMLParser):
    """The links, anchors and loaded files of a page.

    Attributes:
        anchors: What a link can lead to within the page.
        links: (tag, where it leads to).
        loaded: What a browser loads by itself.
    """

    def __init__(self, html: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.loaded: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag has."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        for name in ("href", "src"):
            if name not in values:
                continue
            self.links.append((tag, values[name]))
            if (tag, name) in LOADED and not NOT_LOADED & set(values.get("rel", "").split()):
                self.loaded.append(values[name])


def find_problems(site: Path) -> list[str]:
    """Return what is wrong with the links of a built site, one sentence each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        problems += [f"{name} loads {link} from another server." for link in page.loaded if urlsplit(link).netloc]
        if path.name == "404.html":  # its links are those of the server's root
            continue
        for _, link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                problems.append(f"{name} links to {link}, which is not there.")
            elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].anchors:
                problems.append(f"{name} links to {link}: {target.name} has no such anchor.")
    return sorted(set(problems))
