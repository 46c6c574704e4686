// The page: asks once a second what there is, and shows it.

import { Failed, Refused, keepToken, overview } from "./client.js";
import { count, decimal } from "./format.js";
import { Tile } from "./tile.js";

const PERIOD = 1000;
const RATE_OVER = 6;
const place = (id) => document.getElementById(id);
const tiles = new Map();
const engines = new Map();
let answered = null;

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const tile = tiles.get(entry.target.dataset.name);
    if (tile) tile.visible = entry.isIntersecting;
  }
}, { rootMargin: "200px" });

function showStreams(streams, now) {
  for (const [name, tile] of tiles) {
    if (streams.some((stream) => stream.name === name)) continue;
    watcher.unobserve(tile.root);
    tile.root.remove();
    tiles.delete(name);
  }
  for (const stream of streams) {
    if (!tiles.has(stream.name)) {
      const tile = new Tile(stream.name);
      tiles.set(stream.name, tile);
      place("tiles").append(tile.root);
      watcher.observe(tile.root);
    }
    tiles.get(stream.name).show(stream, now);
  }
  place("empty").hidden = streams.length > 0;
}

function showSummary(streams, lacking) {
  const running = streams.filter((stream) => stream.state === "running").length;
  const paused = streams.filter((stream) => stream.state === "paused").length;
  const outputs = streams.filter((stream) => ["running", "away"].includes(stream.state))
    .flatMap((stream) => stream.snapshot?.sinks ?? []).filter((output) => output.there === false).length;
  const withheld = streams.filter((stream) => stream.withheld_for !== null).length;
  const strong = document.createElement("b");
  strong.textContent = `${running} of ${streams.length}`;
  const rest = [" streams running", paused ? `, ${paused} paused` : "", lacking ? `, ${lacking} engine down` : "",
    outputs ? `, ${outputs} output${outputs > 1 ? "s" : ""} away` : "", withheld ? `, ${withheld} withheld` : ""];
  place("summary").replaceChildren(strong, rest.join(""));
  document.title = `${running}/${streams.length} running · Standin`;
}

function cell(row, text, className = "") {
  const made = row.insertCell();
  made.className = className;
  made.textContent = text;
  return made;
}

// Runs a second over the last seconds; null until there are two looks.
function runRate(engine) {
  const at = performance.now() / 1000;
  const looks = (engines.get(engine.device) ?? []).filter((look) => at - look.at < RATE_OVER && look.runs <= engine.runs);
  engines.set(engine.device, [...looks, { at, runs: engine.runs }]);
  return looks.length ? (engine.runs - looks[0].runs) / (at - looks[0].at) : null;
}

function showEngines(found) {
  const rows = found.map((engine) => {
    const row = document.createElement("tr");
    cell(row, engine.device);
    const state = cell(row, engine.running ? "answers" : "does not answer");
    const dot = document.createElement("i");
    dot.className = engine.running ? "up" : "";
    state.prepend(dot);
    cell(row, decimal(runRate(engine)), "number");
    cell(row, decimal(engine.runs ? engine.rows / engine.runs : null), "number");
    cell(row, count(engine.restarts), "number");
    return row;
  });
  place("engines").querySelector("tbody").replaceChildren(...rows);
  place("engines").hidden = found.length === 0;
}

function showLink(state, text = "") {
  document.body.dataset.link = state;
  place("gone").hidden = state !== "gone";
  place("gone").textContent = text;
}

function clock(time) {
  return time.toLocaleTimeString("en-GB");
}

function showGone(error) {
  const since = answered ? ` since ${clock(answered)}; what is below is old` : "";
  // A server that is there and cannot answer is another matter than none.
  const what = error instanceof Failed ? `The server only answers ${error.message}` : "No answer from the server";
  showLink("gone", `${what}${since}. Trying again …`);
  document.title = "No answer · Standin";
}

function showLocked(error) {
  showLink("locked");
  showStreams([], 0);
  place("empty").hidden = true;
  place("engines").hidden = true;
  place("unlock").hidden = false;
  place("unlock-error").textContent = error.message;
  place("summary").textContent = "locked";
}

async function look() {
  try {
    const found = await overview();
    place("unlock").hidden = true;
    showStreams(found.streams, found.now);
    showEngines(found.engines);
    showSummary(found.streams, found.engines.filter((engine) => !engine.running).length);
    answered = new Date();
    place("updated").lastElementChild.textContent = clock(answered);
    showLink("live");
  } catch (error) {
    if (error instanceof Refused) showLocked(error);
    else showGone(error);
  }
}

async function watch() {
  // A locked page asks no more until it has a token, or the server's log would fill up.
  if (document.body.dataset.link !== "locked") await look();
  setTimeout(watch, PERIOD);
}

place("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepToken(place("token").value.trim());
  place("token").value = "";
  await look();
});

watch();
