"""How the report of `standin verify` looks, light and dark, on paper-wide screens and on phones."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #f4f6f7; --card: #fff; --well: #eef1f3; --ink: #172025; --quiet: #55636c; --line: #dde3e7;
  --accent: #0f766e; --low: #7c8f9a; --good: #15803d; --bad: #b91c1c; --busy: #b45309;
  --bad-ground: #fdeeee; --good-ground: #ecf7f0; --shadow: 0 1px 2px #1720250f, 0 4px 14px #1720250a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0e1214; --card: #171d20; --well: #0b0f11; --ink: #e9eef1; --quiet: #9dabb4; --line: #283136;
    --accent: #2dd4bf; --low: #71838e; --good: #4ade80; --bad: #f87171; --busy: #fbbf24;
    --bad-ground: #2c1718; --good-ground: #11251a; --shadow: none;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink); font-variant-numeric: tabular-nums;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 76rem; margin: 0 auto; padding: clamp(1rem, 3vw, 2.2rem); display: grid; gap: 1.6rem; }
main > * { min-width: 0; }
h1, h2, h3, p, ul, figure, dl, dd { margin: 0; padding: 0; }
h1 { font-size: clamp(1.35rem, 3.4vw, 1.8rem); font-weight: 680; letter-spacing: -.02em; line-height: 1.2; }
h2 { font-size: 1.08rem; font-weight: 650; letter-spacing: -.01em; margin-bottom: .7rem; }
h3 { font-size: .98rem; font-weight: 620; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); }
.head { display: grid; gap: .45rem; }
.names { color: var(--quiet); overflow-wrap: anywhere; }
.names b { color: var(--ink); font-weight: 600; }
.verdict {
  display: flex; align-items: center; gap: .8rem; padding: .9rem 1.1rem; border-radius: 14px; font-weight: 600;
  background: var(--good-ground); color: var(--good); border: 1px solid currentColor; margin-top: .5rem;
}
.verdict.bad { background: var(--bad-ground); color: var(--bad); }
.verdict svg { flex: none; }
.verdict small { display: block; color: var(--quiet); font-weight: 400; font-size: .88rem; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; box-shadow: var(--shadow);
  padding: clamp(.9rem, 2vw, 1.25rem);
}
.measures { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 12.2rem), 1fr)); }
.measure {
  padding: .8rem .95rem; display: flex; flex-direction: column; gap: .1rem; border-left: 4px solid var(--line);
}
.measure.good { border-left-color: var(--good); }
.measure.bad { border-left-color: var(--bad); }
.measure b { font-size: 1.5rem; font-weight: 640; letter-spacing: -.02em; line-height: 1.2; }
.measure.bad b { color: var(--bad); }
.measure .name { font-weight: 600; font-size: .9rem; }
.measure small { color: var(--quiet); font-size: .8rem; line-height: 1.35; }
.measure .limit { margin-top: auto; padding-top: .35rem; }
.findings { list-style: none; display: grid; gap: .1rem; }
.findings li {
  display: grid; grid-template-columns: 1rem 1fr; gap: .6rem; padding: .38rem 0; border-bottom: 1px solid var(--line);
}
.findings li:last-child { border-bottom: 0; }
.findings i { width: .62rem; height: .62rem; border-radius: 50%; background: var(--busy); margin-top: .45rem; }
.findings .bad i { background: var(--bad); }
.findings span { overflow-wrap: anywhere; min-width: 0; }
.findings small { color: var(--quiet); }
.plots { display: grid; gap: 1.3rem; }
.plot { display: grid; gap: .3rem; }
.plot figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .86rem; }
.plot figcaption b { font-weight: 600; }
.plot figcaption small { color: var(--quiet); margin-right: auto; }
.plot .key { display: flex; align-items: center; gap: .4rem; color: var(--quiet); }
.plot .key i { width: 1rem; border-top: 2.5px solid var(--accent); }
.plot .key.low i { border-color: var(--low); }
.plot .key.bad i { border-color: var(--bad); }
.plot .area {
  position: relative; height: 96px; border-bottom: 1px solid var(--line); background: var(--well);
  border-radius: 6px 6px 0 0; overflow: hidden;
}
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.plot path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-width: 1.8; }
.plot .grid { stroke: var(--line); stroke-width: 1; stroke-dasharray: 2 4; }
.plot .line.high { stroke: var(--accent); }
.plot .line.low { stroke: var(--low); }
.plot .line.bad { stroke: var(--bad); }
.plot .fill { stroke: none; opacity: .18; }
.plot .fill.high { fill: var(--accent); }
.plot .fill.low { fill: var(--low); }
.plot .fill.bad { fill: var(--bad); }
.plot .limit { stroke: var(--bad); stroke-width: 1; stroke-dasharray: 5 4; }
.plot .band { fill: var(--bad); opacity: .12; }
.axis { display: flex; justify-content: space-between; font-size: .74rem; color: var(--quiet); }
.worst > p { margin-bottom: .9rem; }
.cases { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); }
.cases.shown { grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)); }
.case {
  border: 1px solid var(--line); border-radius: 12px; overflow: hidden; background: var(--card);
  box-shadow: var(--shadow);
}
.case .pictures { display: flex; background: var(--well); }
.case .pictures figure { flex: 1; min-width: 0; }
.case img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; }
.case .pictures figcaption { font-size: .72rem; color: var(--quiet); text-align: center; padding: .2rem; }
.case p { padding: .6rem .8rem .75rem; font-size: .86rem; overflow-wrap: anywhere; }
.case p b { display: block; font-weight: 620; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th { color: var(--quiet); font-weight: 500; text-align: left; font-size: .8rem; }
th, td { padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; font-weight: 550; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; }
td.bad { color: var(--bad); font-weight: 600; }
details { border-top: 1px solid var(--line); padding-top: .9rem; margin-top: .9rem; }
details:first-of-type { border-top: 0; margin-top: 0; padding-top: 0; }
summary { cursor: pointer; display: list-item; }
summary h3 { display: inline; }
details > .plots { margin-top: .9rem; }
.about { color: var(--quiet); font-size: .88rem; display: grid; gap: .55rem; }
.about h2 { color: var(--ink); margin-bottom: 0; }
.about dl { display: grid; grid-template-columns: fit-content(14rem) 1fr; gap: .2rem 1rem; }
.about dt { color: var(--quiet); overflow-wrap: anywhere; min-width: 0; }
.about dd { color: var(--ink); overflow-wrap: anywhere; min-width: 0; }
@media (max-width: 34rem) {
  .measures { grid-template-columns: 1fr 1fr; }
  .cases:not(.shown) { grid-template-columns: 1fr 1fr; }
  .measure { padding: .7rem .75rem; }
  .measure b { font-size: 1.3rem; }
  .about dl { grid-template-columns: 1fr; }
  .about dd { margin-bottom: .4rem; }
}
@media print { body { background: #fff; } .card, .case { box-shadow: none; break-inside: avoid; } }
"""
