// Latency over the last minutes: a line below which 95 % of the frames were, and one for half of them.

import { age, milliseconds } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const SECONDS = 180;
const WIDTH = 300;
const HEIGHT = 100;

function element(parent, name, className) {
  const made = document.createElementNS(SVG, name);
  made.setAttribute("class", className);
  parent.append(made);
  return made;
}

// The next round number, so that the scale seldom changes.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 0.01)));
  return power * [1, 1.5, 2, 3, 5, 7.5, 10].find((step) => step * power >= value);
}

export class Chart {
  constructor(plot) {
    this.plot = plot;
    this.points = [];
    this.svg = element(plot, "svg", "");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.grid = element(this.svg, "path", "grid");
    this.lines = ["fill", "low", "high"].map((name) => element(this.svg, "path", name));
    this.scale = document.createElement("span");
    this.scale.className = "scale";
    this.nothing = document.createElement("span");
    this.nothing.className = "nothing";
    plot.append(this.scale, this.nothing);
  }

  // recent: [median, 95th percentile, ...] in seconds, or null where nothing was measured.
  add(now, recent) {
    this.points.push({ at: now, low: recent?.[0] ?? null, high: recent?.[1] ?? null });
    this.points = this.points.filter((point) => point.at > now - SECONDS);
    this.draw(now);
  }

  // How far back it shows.
  get span() {
    return `${age(SECONDS)} ago`;
  }

  draw(now) {
    const known = this.points.filter((point) => point.high !== null);
    const top = roundUp(Math.max(0, ...known.map((point) => point.high)) * 1.1);
    const [fill, low, high] = this.lines;
    const over = this.path(now, top, "high");
    high.setAttribute("d", over.map((run) => `M${run.join("L")}`).join(""));
    low.setAttribute("d", this.path(now, top, "low").map((run) => `M${run.join("L")}`).join(""));
    fill.setAttribute("d", over.map((run) => this.closed(run)).join(""));
    this.grid.setAttribute("d", known.length ? `M0 0H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}` : "");
    this.scale.textContent = known.length ? `${milliseconds(top)} ms` : "";
    this.nothing.textContent = known.length ? "" : "no latency measured";
    this.plot.setAttribute("aria-label", this.words(known));
  }

  // Runs of points without a gap, as "x y".
  path(now, top, name) {
    const runs = [[]];
    for (const point of this.points) {
      if (point[name] === null) {
        runs.push([]);
        continue;
      }
      const x = WIDTH * (1 - (now - point.at) / SECONDS);
      runs.at(-1).push(`${x.toFixed(2)} ${(HEIGHT * (1 - point[name] / top)).toFixed(2)}`);
    }
    return runs.filter((run) => run.length);
  }

  closed(run) {
    const [first, last] = [run[0], run.at(-1)].map((point) => point.split(" ")[0]);
    return `M${first} ${HEIGHT}L${run.join("L")}L${last} ${HEIGHT}Z`;
  }

  words(known) {
    if (!known.length) return "Latency: nothing measured";
    const all = known.map((point) => point.high);
    const [now, least, most] = [all.at(-1), Math.min(...all), Math.max(...all)].map(milliseconds);
    return `Latency, 95 % within: ${now} ms now, between ${least} and ${most} ms in the last ${age(SECONDS)}`;
  }
}
