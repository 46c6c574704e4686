"""The style of a benchmark's report; light and dark, on a desk and on a phone."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #f4f6f7; --card: #ffffff; --ink: #172025; --quiet: #55636c; --line: #dde3e7; --well: #eef1f3;
  --busy: #92400e; --busy-ground: #fff7e6;
  --c0: #0f766e; --c1: #c2410c; --c2: #2563eb; --c3: #a21caf; --c4: #4d7c0f; --c5: #be123c;
  --shadow: 0 1px 2px #1720250f, 0 4px 14px #1720250a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0e1214; --card: #171d20; --ink: #e9eef1; --quiet: #9dabb4; --line: #2b353a; --well: #0f1416;
    --busy: #fbbf24; --busy-ground: #2b2210;
    --c0: #2dd4bf; --c1: #fb923c; --c2: #60a5fa; --c3: #e879f9; --c4: #a3e635; --c5: #fb7185;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink); font-variant-numeric: tabular-nums;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif;
}
h1, h2, h3, p, dl, dd, ul { margin: 0; }
header {
  padding: 1.6rem clamp(1rem, 4vw, 2.5rem) 1.3rem; background: var(--card);
  border-bottom: 1px solid var(--line);
}
h1 { font-size: 1.5rem; font-weight: 680; letter-spacing: -.02em; line-height: 1.2; }
header p.seeded { color: inherit; font-weight: 600; }
header p { color: var(--quiet); margin-top: .3rem; overflow-wrap: anywhere; }
main {
  max-width: 84rem; margin: 0 auto; padding: clamp(1rem, 2.6vw, 1.8rem) clamp(.8rem, 4vw, 2.5rem) 3rem;
  display: grid; gap: clamp(.9rem, 1.8vw, 1.4rem); grid-template-columns: minmax(0, 1fr);
}
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; box-shadow: var(--shadow);
  padding: 1.1rem clamp(.9rem, 2vw, 1.4rem) 1.3rem; min-width: 0;
}
.remarks { background: var(--busy-ground); border-color: color-mix(in srgb, var(--busy) 35%, transparent); }
.remarks h2 { color: var(--busy); }
ul { padding-left: 1.15rem; }
li { margin-top: .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; font-weight: 650; letter-spacing: -.01em; line-height: 1.3; overflow-wrap: anywhere; }
h3 { font-size: .95rem; font-weight: 620; margin-bottom: .35rem; }
.note { color: var(--quiet); font-size: .87rem; max-width: 60rem; }
.note + h2 { margin-top: 1.2rem; }
.note + .note { margin-top: .5rem; }
h2 + .note { margin: .15rem 0 .8rem; }
.pair {
  display: grid; gap: 1.4rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  margin-top: 1.2rem;
}
.pair > * { min-width: 0; }
.tiles {
  display: grid; gap: .9rem 1.6rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 9.2rem), 1fr));
  margin-top: .9rem;
}
.tiles dt { color: var(--quiet); font-size: .82rem; }
.tiles dd { font-size: 1.55rem; font-weight: 620; letter-spacing: -.02em; line-height: 1.25; }
.tiles dd small { font-size: .85rem; font-weight: 500; color: var(--quiet); letter-spacing: 0; }
.tiles .more {
  display: block; font-size: .8rem; font-weight: 400; letter-spacing: 0; line-height: 1.35; color: var(--quiet);
}
.tiles dd.none { font-size: 1rem; color: var(--quiet); font-weight: 500; line-height: 1.9; }
.tables { display: grid; gap: 1.4rem 2.5rem; margin-top: 1.4rem; }
.tables > * { min-width: 0; }
details.card { padding: 0; }
details > div { padding: 0 clamp(.9rem, 2vw, 1.4rem) 1.3rem; }
summary {
  cursor: pointer; padding: .95rem clamp(.9rem, 2vw, 1.4rem); list-style: none;
  display: grid; grid-template-columns: 1rem minmax(0, 1fr) auto; gap: .1rem .5rem; align-items: baseline;
}
summary::-webkit-details-marker { display: none; }
summary::before {
  content: ""; width: .5rem; height: .5rem; border: solid var(--quiet); border-width: 0 2px 2px 0;
  transform: rotate(-45deg) translateY(-.1rem); transition: transform .12s;
}
details[open] > summary::before { transform: rotate(45deg) translateX(-.1rem); }
summary span { color: var(--quiet); }
summary:focus-visible { outline: 2px solid var(--c0); outline-offset: -2px; border-radius: 14px; }
.scroll { overflow-x: auto; margin-top: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; font-weight: 450; color: var(--quiet); font-size: .82rem; vertical-align: bottom; }
th, td { padding: .42rem 1.1rem .42rem 0; border-bottom: 1px solid var(--line); }
tr:last-child > td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: anywhere; min-width: 13rem; }
.tables + .facts { margin-top: 1.2rem; }
td small { color: var(--quiet); }
.facts {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .3rem 1.2rem; font-size: .9rem;
  margin-top: .5rem;
}
.facts dt { color: var(--quiet); }
.facts dd { overflow-wrap: anywhere; }

@media (max-width: 640px) {
  .facts { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .facts dd { margin-bottom: .5rem; }
  summary span { grid-column: 2; }
}

.plot { --left: 3.1rem; }
.key {
  display: flex; flex-wrap: wrap; gap: .15rem 1rem; font-size: .82rem; color: var(--quiet);
  margin-bottom: .3rem;
}
.entry { display: inline-flex; align-items: center; gap: .4rem; }
.entry i { width: .8rem; height: .8rem; border-radius: 3px; background: currentColor; flex: none; }
.entry i.mark { width: 0; height: .9rem; border-radius: 0; background: none; border-left: 2px dashed currentColor; }
.beside, .below { font-size: .78rem; color: var(--quiet); }
.below { text-align: right; }
.canvas { display: flex; padding-right: .8rem; margin-top: .35rem; }
.levels { position: relative; width: var(--left); flex: none; }
.levels span {
  position: absolute; right: .5rem; transform: translateY(50%); font-size: .78rem; color: var(--quiet);
  line-height: 1;
}
.bare .levels { display: none; }
.area { flex: 1; min-width: 0; width: 0; height: 100%; overflow: visible; display: block; }
.ticks { position: relative; height: 1.35rem; margin: .3rem .8rem 0 var(--left); }
.ticks.bare { margin-left: 0; }
.ticks span { position: absolute; transform: translateX(-50%); font-size: .78rem; color: var(--quiet); }
.ticks.bare span:first-child { transform: none; }
.grid { stroke: var(--line); stroke-width: 1; }
.path { stroke: currentColor; stroke-width: 2.5; stroke-linecap: round; }
.range { stroke: currentColor; stroke-width: 1.5; opacity: .75; }
.dot { fill: currentColor; stroke: var(--card); stroke-width: 1.5; }
.bar { fill: var(--c0); opacity: .8; }
.bar:hover, .span:hover { opacity: 1; }
line.mark { stroke: currentColor; stroke-width: 2; stroke-dasharray: 4 3; }
.m0 { color: var(--ink); } .m1 { color: var(--c1); } .m2 { color: var(--c5); }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.s-0 { color: var(--c2); } .s-1 { color: var(--c0); } .s-2 { color: var(--c1); } .s-3 { color: var(--c3); }
.span { fill: currentColor; opacity: .88; }
footer { color: var(--quiet); font-size: .82rem; text-align: center; padding: 0 1rem 2rem; }
@media print { body { background: none; } .card { box-shadow: none; break-inside: avoid; } }
"""
