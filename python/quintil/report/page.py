"""A page as a list of blocks, written as markdown and as one self-contained HTML file."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .render import COLOURS, GRID, INK, MUTED, Drawn
from .tables import Rows, markdown


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; `name` in backticks is code."""

    text: str


@dataclass(frozen=True)
class Table:
    rows: Rows


@dataclass(frozen=True)
class Image:
    drawn: Drawn
    file: str  # name of the PNG beside the page


@dataclass(frozen=True)
class Listing:
    """Names and what they mean."""

    entries: dict[str, str]


Block = Heading | Text | Table | Image | Listing


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    parts = [f"# {title}"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Table):
            parts.append(markdown(block.rows))
        elif isinstance(block, Image):
            picture = block.drawn.picture
            formula = f"\n{picture.title}: {picture.formula}." if picture.formula else ""
            parts.append(f"![{picture.title}]({block.file}){formula}")
        else:
            parts.append("\n".join(f"* `{name}`: {text}." for name, text in block.entries.items()))
    return "\n\n".join(parts) + "\n"


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """Works without a network and without scripts; wide tables scroll, panels stand below each other on a phone."""
    body = [f"<h1>{_inline(title)}</h1>"]
    sections = [block for block in blocks if isinstance(block, Heading) and block.level == 2]
    if len(sections) > 2:
        links = (f'<li><a href="#s{n}">{_inline(block.text)}</a></li>' for n, block in enumerate(sections))
        body.append(f"<nav><ul>{''.join(links)}</ul></nav>")
    for block in blocks:
        if isinstance(block, Heading):
            place = f' id="s{sections.index(block)}"' if block in sections else ""
            body.append(f"<h{block.level}{place}>{_inline(block.text)}</h{block.level}>")
        elif isinstance(block, Text):
            body.append(f"<p>{_inline(block.text)}</p>")
        elif isinstance(block, Table):
            body.append(_table(block.rows))
        elif isinstance(block, Image):
            body.append(_image(block.drawn))
        else:
            entries = (f"<dt><code>{n}</code></dt><dd>{_inline(text)}</dd>" for n, text in block.entries.items())
            body.append(f"<dl>{''.join(entries)}</dl>")
    return _PAGE.replace("@TITLE@", html.escape(title)).replace("@STYLE@", _style()).replace("@BODY@", "\n".join(body))


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))


_TEXT_COLUMNS = ("arithmetic", "head", "formula")


def _table(rows: Rows) -> str:
    texts = sum(title in _TEXT_COLUMNS for title in rows[0])
    head = "".join(f'<th scope="col"{_side(n, texts)}>{_inline(cell)}</th>' for n, cell in enumerate(rows[0]))
    lines = []
    for row in rows[1:]:
        cells = [f'<th scope="row">{_inline(row[0])}</th>']
        cells += [f"<td{_side(n, texts)}>{_inline(cell)}</td>" for n, cell in enumerate(row[1:], 1)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _side(column: int, texts: int) -> str:
    return "" if column < texts else ' class="n"'


def _image(drawn: Drawn) -> str:
    picture = drawn.picture
    panels = "\n".join(f'<div class="panel">{svg}</div>' for svg in drawn.svgs)
    keys = "".join(_key(key.label, key.colour, key.dashes) for key in drawn.keys)
    legend = f'<p class="keys">{keys}</p>' if keys else ""
    caption = f"<b>{_inline(picture.title)}.</b> {_inline(picture.formula)}"
    grid = f'<div class="panels" style="--n:{picture.columns}">{panels}</div>'
    return f"<figure>\n<figcaption>{caption}</figcaption>\n{grid}\n{legend}</figure>"


def _key(label: str, colour: str, dashes: str) -> str:
    named = {INK: "--ink", MUTED: "--muted", **{c: f"--c{n}" for n, c in enumerate(COLOURS)}}
    stroke = f"var({named[colour]})" if colour in named else colour
    pattern = {"--": ' stroke-dasharray="6 3"', ":": ' stroke-dasharray="2 3"'}.get(dashes, "")
    if dashes in ("None", "", " "):
        mark = f'<circle cx="12" cy="5" r="5" fill="{stroke}"/>'
    else:
        mark = f'<path d="M0 5H24" stroke="{stroke}" stroke-width="2.5"{pattern}/>'
    return (
        f'<span><svg viewBox="0 0 24 10" width="24" height="10" aria-hidden="true">{mark}</svg>{_inline(label)}</span>'
    )


_DARK = ("#6ea8f0", "#f0965a", "#5cc48c", "#c08ae0", "#b8a48e", "#f070a0", "#4fc8c8", "#d0c04a")


def _style() -> str:
    light = "".join(f"--c{n}:{colour};" for n, colour in enumerate(COLOURS))
    dark = "".join(f"--c{n}:{colour};" for n, colour in enumerate(_DARK))
    return _CSS.replace("@LIGHT@", f"--ink:{INK};--muted:{MUTED};--grid:{GRID};{light}").replace("@DARK@", dark)


_CSS = """
:root{color-scheme:light dark;--back:#fff;--soft:#f5f6f8;--link:#1f5fa8;@LIGHT@
  --font:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){:root{--back:#15171b;--soft:#1e2127;--link:#8ab8f5;--ink:#e8e8ea;--muted:#a4a6ad;
  --grid:#33363d;@DARK@}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:1rem 1rem 4rem;max-width:66rem;background:var(--back);color:var(--ink);
  font:1rem/1.5 var(--font);overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:1rem 0}
h2{font-size:1.25rem;line-height:1.3;margin:2.5rem 0 .5rem;padding-top:.75rem;border-top:1px solid var(--grid)}
h3{font-size:1.05rem;margin:1.75rem 0 .5rem}
a{color:var(--link)} nav ul{padding-left:1.2rem}
p{max-width:48rem}
code{font:.88em ui-monospace,"DejaVu Sans Mono",monospace;background:var(--soft);padding:.1em .25em;border-radius:3px}
.wide{overflow-x:auto;margin:.75rem 0;border:1px solid var(--grid);border-radius:6px}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{text-align:left;padding:.4rem .7rem;white-space:nowrap;border-bottom:1px solid var(--grid)}
tbody tr:last-child>*{border-bottom:0}
thead th{white-space:normal;background:var(--soft);font-weight:600;vertical-align:bottom} tbody th{font-weight:500}
th.n,td.n{text-align:right}
thead code{background:none;padding:0}
figure{margin:1.5rem 0} figcaption{font-size:.9rem;color:var(--muted);max-width:48rem} figcaption b{color:var(--ink)}
.panels{display:grid;gap:.75rem;margin-top:.5rem;
  grid-template-columns:repeat(auto-fit,minmax(min(100%,max(18rem,100%/var(--n) - 1rem)),1fr))}
.panel{max-width:34rem} .panel svg{display:block;width:100%;height:auto;overflow:visible}
.keys{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;font-size:.85rem;color:var(--muted);margin:.25rem 0 0}
.keys span{display:inline-flex;align-items:center;gap:.4rem} .keys svg{flex:none}
dl{font-size:.92rem} dt{margin-top:.6rem} dd{margin:.1rem 0 0 1rem;color:var(--muted)}
@media (max-width:40rem){th,td{padding:.3rem .45rem} table{font-size:.8rem}}
@media print{figure,table{break-inside:avoid}}
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<style>@STYLE@</style>
</head>
<body>
@BODY@
</body>
</html>
"""
