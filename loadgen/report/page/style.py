"""The style of the page: light or dark as the reader has it, one column where it is narrow."""

from typing import Final

from loadgen.report.page.markup import Markup

STYLE: Final = Markup("""
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1c2430; --dim: #5b6675; --rule: #dde2e9; --panel: #f6f7f9;
  --s1: #1f66d0; --s2: #c2570c; --s3: #11803b; --s4: #7b3fc4; --faint: #8a94a3; --bad: #c81e2c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181e; --ink: #e6eaf0; --dim: #9ba6b5; --rule: #303845; --panel: #1c222b;
    --s1: #6ea8ff; --s2: #f5a35c; --s3: #51cf7b; --s4: #c197ff; --faint: #7d8896; --bad: #ff7b7f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem;
  background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.5rem; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h3 { font-size: .95rem; margin: 0 0 .25rem; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; }
@media (max-width: 48rem) { .tiles { grid-template-columns: repeat(2, 1fr); } }
.tile { background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; }
.tile span { display: block; color: var(--dim); font-size: .8rem; }
.tile b { display: block; font-size: 1.25rem; font-weight: 600; line-height: 1.3; }
dl { columns: 26rem 2; column-gap: 2rem; margin: 1rem 0; }
dl div { display: grid; grid-template-columns: 8.5rem 1fr; break-inside: avoid; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
.warning { border-left: .25rem solid var(--s2); background: var(--panel); padding: .5rem .8rem; }
.plots {
  display: grid; gap: 1.5rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
}
figure { margin: 0; min-width: 0; display: flex; flex-direction: column; }
svg { display: block; width: 100%; height: auto; margin-top: auto; }
svg text { fill: var(--dim); font-size: 12.5px; }
svg .axis { fill: var(--ink); }
svg .marked { fill: var(--ink); paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
@media (max-width: 30rem) { svg text { font-size: 15px; } }
.grid { stroke: var(--rule); }
.tick { stroke: var(--dim); }
.mark { stroke: var(--ink); stroke-dasharray: 5 4; }
polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
polyline.s1 { stroke: var(--s1); } circle.s1, i.s1 { fill: var(--s1); background: var(--s1); }
polyline.s2 { stroke: var(--s2); } circle.s2, i.s2 { fill: var(--s2); background: var(--s2); }
polyline.s3 { stroke: var(--s3); } circle.s3, i.s3 { fill: var(--s3); background: var(--s3); }
polyline.s4 { stroke: var(--s4); } circle.s4, i.s4 { fill: var(--s4); background: var(--s4); }
polyline.bad { stroke: var(--bad); } circle.bad, i.bad { fill: var(--bad); background: var(--bad); }
polyline.faint { stroke: var(--faint); stroke-width: 1.2; }
circle.faint, i.faint { fill: var(--faint); background: var(--faint); }
.bar { fill: var(--s1); }
.bar:hover { fill: var(--s2); }
.tip { fill: transparent; }
.tip:hover { fill: var(--faint); fill-opacity: .2; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: 0; padding: 0; }
.legend { list-style: none; font-size: .85rem; color: var(--dim); }
.legend i { display: inline-block; width: 1rem; height: .2rem; margin-right: .4rem; }
.legend i { vertical-align: middle; border-radius: .1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th { color: var(--dim); font-weight: 600; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th.group { padding-top: .8rem; border: none; }
.words th:nth-child(2), .words td:nth-child(2) { text-align: left; }
tbody td { border-bottom: 1px solid var(--rule); }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
footer { margin-top: 2.5rem; color: var(--dim); font-size: .85rem; }
""")
