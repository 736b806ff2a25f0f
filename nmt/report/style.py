"""The page's style sheet and script, kept inline so that the file needs no network."""

CSS = """
:root { color-scheme: light dark; --paper: #fbfaf8; --card: #fff; --ink: #1d2430; --soft: #5c6675; --line: #dcdfe4;
  --blue: #1f5fae; --orange: #b65300; --heat: 13 58 122; --on-heat: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --card: #1b2027; --ink: #e6e9ee; --soft: #a2abb8; --line: #353c47;
    --blue: #7db4f5; --orange: #f0a25c; --heat: 158 202 255; --on-heat: #0b1420; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .7rem; }
h3 { font-size: .95rem; margin: 0 0 .6rem; }
p { margin: .3rem 0; } .soft, figcaption, dt { color: var(--soft); } .small, figcaption { font-size: .85rem; }
code, pre { font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
pre { margin: 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  white-space: pre-wrap; }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr)); }
.card, article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1.1rem; }
.card b { display: block; font-size: 1.9rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card code { display: block; font-size: .72rem; color: var(--soft); }
article { margin: 0 0 1rem; }
figure { margin: 0; }
.charts { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); } svg path { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .a { stroke: var(--blue); } svg .b { stroke: var(--orange); stroke-dasharray: 6 3; }
svg circle { fill: var(--card); stroke-width: 2; } svg circle.b { stroke-dasharray: none; }
svg text.a { fill: var(--blue); stroke: none; } svg text.b { fill: var(--orange); stroke: none; }
.data { border-collapse: collapse; } .data th, .data td { text-align: start; padding: .3rem 1.2rem .3rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; justify-self: start; }
summary { cursor: pointer; padding: .2rem 0; } details { margin: .6rem 0; }
.scroll { overflow-x: auto; margin-top: .9rem; padding-bottom: .3rem; }
.heat { border-collapse: separate; border-spacing: 1px; font-size: .85rem; line-height: 1.2; }
.heat th { font-weight: 400; white-space: pre; padding: 2px 5px; }
.heat thead th { vertical-align: bottom; text-align: start; }
.heat thead span { writing-mode: vertical-rl; display: inline-block; max-height: 12em; }
.heat tbody th { text-align: end; position: sticky; left: 0; background: var(--card); max-width: 12em; overflow: hidden;
  text-overflow: ellipsis; }
.heat td { width: 1.75em; min-width: 1.75em; height: 1.75em; padding: 0; text-align: center; font-size: .68rem;
  color: var(--ink); background: rgb(var(--heat) / var(--w, 0)); box-shadow: inset 0 0 0 1px var(--line);
  font-variant-numeric: tabular-nums; }
.heat thead td { box-shadow: none; }
.heat td.hi { color: var(--on-heat); } .heat .end { color: var(--soft); font-style: italic; }
.heat td:focus, .heat td:hover, :focus-visible { outline: 3px solid var(--orange); outline-offset: -1px; }
.heat th.on { background: var(--ink); color: var(--paper); border-radius: 3px; }
output { display: block; min-height: 1.5em; font-size: .85rem; color: var(--soft); }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
  body { padding: 1.2rem .8rem 3rem; } }
@media print { body { max-width: none; } .scroll { overflow: visible; } }
"""

# One cell of each matrix is in the tab order; the arrow keys, Home and End move from there.
SCRIPT = """
for (const table of document.querySelectorAll("table.heat")) {
  const rows = table.tBodies[0].rows, heads = table.tHead.rows[0].cells;
  const output = table.closest("article").querySelector("output");
  let on = [];
  const within = (value, low, high) => Math.max(low, Math.min(value, high));
  const cell = (r, c) => rows[within(r, 0, rows.length - 1)].cells[within(c, 1, heads.length - 1)];
  const show = (td) => {
    on.forEach((th) => th.classList.remove("on"));
    on = [td.parentNode.cells[0], heads[td.cellIndex]];
    on.forEach((th) => th.classList.add("on"));
    const name = (th) => "\\u2068" + th.textContent + "\\u2069";
    output.textContent = name(on[0]) + " \\u2190 " + name(on[1]) + ": " + td.title;
  };
  let current = cell(0, 1);
  current.tabIndex = 0;
  table.addEventListener("mouseover", (e) => e.target.tagName === "TD" && show(e.target));
  table.addEventListener("focusin", (e) => e.target.tagName === "TD" && show(e.target));
  table.addEventListener("click", (e) => e.target.tagName === "TD" && move(e.target));
  const move = (td) => { current.tabIndex = -1; current = td; td.tabIndex = 0; td.focus(); };
  table.addEventListener("keydown", (e) => {
    const r = current.parentNode.sectionRowIndex, c = current.cellIndex;
    const to = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
      Home: [r, 1], End: [r, heads.length - 1] }[e.key];
    if (to) { e.preventDefault(); move(cell(...to)); }
  });
}
"""
