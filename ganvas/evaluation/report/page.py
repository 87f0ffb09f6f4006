"""The report's page around its content: style for light and dark, and the script that shows values of curves.

Everything is inline, and the policy in the head forbids the browser to load anything else.
"""

from html import escape

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f5f3; --card: #ffffff; --ink: #1d2025; --soft: #626974; --line: #e1e2e4; --good: #0b7a53;
  --s0: #2563eb; --s1: #d4510c; --s2: #0b8a5c; --s3: #8b3ddb; --s4: #a16c07; --s5: #0e7490;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14161a; --card: #1d2025; --ink: #e8e9eb; --soft: #9aa2ae; --line: #32363d; --good: #4fd1a1;
    --s0: #7aa5ff; --s1: #ff9466; --s2: #4fd1a1; --s3: #c9a0ff; --s4: #f0c05a; --s5: #5cc8dc;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 0.9rem; font-size: 1.25rem; }
h3 { margin: 0 0 0.5rem; font-size: 0.95rem; }
p { margin: 0.5rem 0; overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); }
.card, figure { margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
.tiles, .charts, .samples { display: grid; gap: 1rem; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); margin: 1.5rem 0 0; }
.tiles div { min-width: 0; }
.tiles dt { color: var(--soft); font-size: 0.85rem; }
.tiles dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles dd small { display: block; font-size: 0.8rem; font-weight: 400; color: var(--soft); }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
.samples { grid-template-columns: repeat(auto-fill, minmax(min(100%, 10.5rem), 1fr)); align-items: start; }
.groups { columns: 19rem; column-gap: 1rem; }
.groups .card { break-inside: avoid; margin-bottom: 1rem; }
.latest { margin-bottom: 1rem; text-align: center; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: 4px; }
.samples figure { position: relative; }
.samples label { display: block; cursor: zoom-in; }
.samples input { position: absolute; opacity: 0; }
.samples input:focus-visible + img { outline: 3px solid var(--s0); }
.samples img { width: 100%; }
.samples figure:has(:checked) { grid-column: 1 / -1; text-align: center; }
.samples :checked + img { width: auto; cursor: zoom-out; }
figcaption { font-size: 0.9rem; }
img + figcaption, label + figcaption { margin-top: 0.6rem; }
.chart figcaption { color: var(--ink); font-weight: 600; font-size: 0.95rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; margin: 0.2rem 0 0.5rem; padding: 0; list-style: none; }
.legend li { color: var(--soft); font-size: 0.85rem; }
.legend b { color: var(--ink); font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 0.9rem; height: 0.25rem; margin-right: 0.4rem; border-radius: 2px;
  vertical-align: middle; background: var(--s); }
.s0 { --s: var(--s0); } .s1 { --s: var(--s1); } .s2 { --s: var(--s2); }
.s3 { --s: var(--s3); } .s4 { --s: var(--s4); } .s5 { --s: var(--s5); }
svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); }
.axis, .tick { stroke: var(--soft); }
.curve { fill: none; stroke: var(--s); stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.range { fill: var(--s); opacity: 0.16; }
.end { fill: var(--s); }
.cursor { stroke: var(--soft); stroke-dasharray: 3 3; visibility: hidden; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.4rem 0.75rem 0.4rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
th { font-weight: 400; color: var(--soft); }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.groups table { table-layout: fixed; }
tr > :last-child { padding-right: 0; }
.groups td { text-align: right; }
.scores td, .scores thead th { white-space: nowrap; }
.scores thead th { font-weight: 600; color: var(--ink); }
.scores tbody th { color: var(--ink); }
.better { font-weight: 600; color: var(--good); }
.better .soft { font-weight: 400; }
@media (max-width: 30rem) {
  body { padding: 1.25rem 0.75rem 3rem; }
  .card, figure { padding: 0.75rem; }
  .scores .soft { display: block; }
}
"""

# The legend shows the latest values; under the pointer, those of the nearest step.
SCRIPT = """
for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg"), cursor = figure.querySelector(".cursor");
  const caption = figure.querySelector("figcaption"), cells = [...figure.querySelectorAll(".legend b")];
  const title = caption.textContent, latest = cells.map((cell) => cell.textContent);
  const { x: [low, high, start, end], series } = JSON.parse(figure.dataset.curves);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const wanted = low + (at - start) / (end - start) * (high - low);
    const distance = (step) => Math.abs(step - wanted);
    const step = series.flatMap((each) => each.steps).reduce((a, b) => distance(b) < distance(a) ? b : a);
    const place = start + (step - low) / (high - low) * (end - start);
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.style.visibility = "visible";
    caption.textContent = `${title}, step ${step.toLocaleString("en")}`;
    series.forEach((each, i) => { cells[i].textContent = each.values[each.steps.indexOf(step)] ?? "–"; });
  });
  svg.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden";
    caption.textContent = title;
    cells.forEach((cell, i) => { cell.textContent = latest[i]; });
  });
}
"""


def page(title: str, body: str) -> str:
    """Make a whole HTML page.

    Args:
        title: Plain text; escaped here.
        body: HTML, its texts escaped already.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
