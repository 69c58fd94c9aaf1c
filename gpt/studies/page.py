"""A report as one HTML file that needs nothing beside it: pictures inside, no script, legible dark and light.

Reads the Markdown that our own reports write, and no more of it: headings, paragraphs, lists, tables, pictures and
fenced blocks. A bold line above a fenced block is its caption; captioned blocks and pictures that follow each other
stand side by side where the window is wide enough. All text is escaped: HTML in a response is shown and not obeyed.
"""

import base64
import re
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1a; --paper: #fdfdfb; --pale: #f0f0ec; --line: #cfcfc8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e9e9e4; --paper: #191a1b; --pale: #26282a; --line: #46494c } }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--paper); color: var(--ink);
       font: 1rem/1.5 system-ui, sans-serif }
p, li { max-width: 50rem }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .6rem; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem }
th, td { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: bottom }
td { white-space: nowrap }
.number { text-align: right }
img { max-width: 100%; height: auto; border-radius: 4px }
.side { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)) }
div.side:has(img) { grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)) }
figure { margin: 0; min-width: 0 }
figcaption { font-weight: 600; overflow-wrap: anywhere }
pre { margin: .2rem 0; padding: .5rem .7rem; background: var(--pale); border-radius: 4px; white-space: pre-wrap;
      overflow-wrap: anywhere; font: .875rem/1.45 ui-monospace, monospace }
"""
# No script, no address: a browser is told so as well, should something slip through.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_page(markdown: str, folder: Path) -> str:
    """The page of a report whose pictures lie in the folder. Raises FileNotFoundError for one that does not."""
    body, blocks = [], list(split_blocks(markdown))
    for i, lines in enumerate(blocks):
        if is_caption(lines) and i + 1 < len(blocks) and is_fence(blocks[i + 1]):
            caption, text = inline_html(lines[0]), fence_html(blocks[i + 1])
            body.append(f'<figure><figcaption dir="auto">{caption}</figcaption>{text}</figure>')
        elif not (is_fence(lines) and i and is_caption(blocks[i - 1])):
            body.append(block_html(lines, folder))
    parts = [
        f'<div class="side">{"".join(group)}</div>' if is_figure else "\n".join(group)
        for is_figure, group in groupby(body, lambda part: part.startswith("<figure>"))
    ]
    title = next((lines[0][2:] for lines in blocks if lines[0].startswith("# ")), "Report")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<style>{STYLE}</style>\n</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def split_blocks(markdown: str) -> Iterator[list[str]]:
    """The lines of each block; a fenced one is whole, whatever stands in it."""
    lines, block, fence = markdown.split("\n"), [], ""
    for line in lines:
        if fence or line.strip():
            block.append(line)
        if fence and line == fence:
            fence = ""
        elif not fence and line.startswith("```"):
            fence = re.match("`+", line)[0]
        if block and not fence and (not line.strip() or is_fence(block)):
            yield block
            block = []
    if block:
        yield block


def is_fence(lines: list[str]) -> bool:
    return lines[0].startswith("```")


def is_caption(lines: list[str]) -> bool:
    return len(lines) == 1 and lines[0].startswith("**")


def inline_html(text: str) -> str:
    """Escaped text, with **bold**, *italic* and `code`."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"(?<!\w)\*([^*]+)\*(?!\w)", r"<em>\1</em>", text)


def fence_html(lines: list[str]) -> str:
    return f'<pre dir="auto">{escape(chr(10).join(lines[1:-1]))}</pre>'


def block_html(lines: list[str], folder: Path) -> str:
    """A heading, table, list, picture, fenced block or paragraph."""
    text = " ".join(lines)
    if is_fence(lines):
        return fence_html(lines)
    if heading := re.fullmatch(r"(#{1,4}) (.*)", text):
        level = len(heading[1])
        return f"<h{level}>{inline_html(heading[2])}</h{level}>"
    if picture := re.fullmatch(r"!\[(.*)\]\(([\w.-]+)\)", text):
        data = base64.b64encode((folder / picture[2]).read_bytes()).decode()
        return f'<figure><img alt="{escape(picture[1])}" src="data:image/png;base64,{data}"></figure>'
    if lines[0].startswith("| "):
        return table_html(lines)
    if lines[0].startswith("- "):
        return "<ul>" + "".join(f"<li>{inline_html(line.removeprefix('- '))}</li>" for line in lines) + "</ul>"
    return f"<p>{inline_html(text)}</p>"


def table_html(lines: list[str]) -> str:
    """Columns that the rule under the header sets to the right hold numbers."""
    header, rule, *rows = ([cell.strip().replace(r"\|", "|") for cell in line[2:-2].split(" | ")] for line in lines)
    kinds = [' class="number"' if cell.endswith(":") else "" for cell in rule]

    def row(cells: list[str], tag: str) -> str:
        return (
            "<tr>" + "".join(f"<{tag}{k}>{inline_html(c)}</{tag}>" for c, k in zip(cells, kinds, strict=True)) + "</tr>"
        )

    body = row(header, "th") + "".join(row(cells, "td") for cells in rows)
    return f'<div class="wide" tabindex="0"><table>{body}</table></div>'
