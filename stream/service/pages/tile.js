// One stream. All texts come from outside and go in as text, never as markup.

import { preview } from "./client.js";
import { Chart } from "./chart.js";
import { NOTHING, age, count, decimal, milliseconds } from "./format.js";

const RECENTLY = 60;
// In which frames go out; elsewhere what a stream does now is nothing.
const GOING_OUT = new Set(["running", "away"]);

export class Tile {
  constructor(name) {
    this.name = name;
    this.root = document.getElementById("tile").content.cloneNode(true).firstElementChild;
    this.root.dataset.name = name;
    this.root.setAttribute("aria-label", `Stream ${name}`);
    this.image = this.root.querySelector("img");
    this.image.alt = `Anonymized preview of ${name}`;
    this.fields = new Map([...this.root.querySelectorAll("[data-field]")].map((field) => [field.dataset.field, field]));
    this.chart = new Chart(this.root.querySelector(".plot"));
    this.counters = new Map();
    this.visible = true;
    this.asking = false;
    this.put("name", name);
    this.put("span", this.chart.span);
  }

  put(field, text, title = "") {
    const place = this.fields.get(field);
    if (place.textContent !== text) place.textContent = text;
    if (title) place.title = title;
  }

  show(stream, now) {
    const snapshot = stream.snapshot;
    const frames = snapshot?.frames ?? {};
    const live = GOING_OUT.has(stream.state) ? snapshot : null;
    this.root.dataset.state = stream.state;
    this.put("state", stream.state);
    this.put("age", age(now - stream.since));
    this.put("source", stream.source, stream.source);
    const sinks = stream.sinks.join(", ") || NOTHING;
    this.put("sinks", sinks, sinks);
    this.put("rate", decimal(live?.rate));
    // Without a source nothing arrives that could be late.
    const recent = stream.state === "running" ? (snapshot?.latency.recent ?? null) : null;
    this.put("latency", milliseconds(recent?.[1]));
    this.put("persons", live ? count(live.regions.person ?? 0) : NOTHING);
    this.put("faces", live ? count(live.regions.face ?? 0) : NOTHING);
    this.put("withheld", snapshot ? count(frames.withheld ?? 0) : NOTHING);
    const outputs = snapshot?.sinks ?? [];
    const counting = outputs.filter((output) => output.dropped !== null);
    const unsent = counting.reduce((sum, output) => sum + output.dropped, 0);
    const dropped = [frames.dropped ?? 0, ...(counting.length ? [unsent] : [])].map(count).join(" / ");
    this.put("dropped", snapshot ? dropped : NOTHING, "came too late / did not reach an output");
    const { source = 0, sink = 0 } = snapshot?.reconnects ?? {};
    this.put("reconnects", snapshot ? `${count(source)} / ${count(sink)}` : NOTHING, "of the source / of the sink");
    this.put("restarts", count(stream.restarts));
    // What is drawn over time goes by this machine's steady clock: a step of the other one changes nothing.
    const seconds = performance.now() / 1000;
    const lost = { dropped: (frames.dropped ?? 0) + unsent, reconnects: source + sink };
    this.mark({ withheld: frames.withheld ?? 0, restarts: stream.restarts, ...lost }, seconds);
    this.chart.add(seconds, recent);
    this.tell(".lost", "lost", stream.source_error ?? "");
    const withholding = stream.withheld_for !== null;
    this.root.toggleAttribute("data-withholding", withholding);
    const why = snapshot?.last_error ? `: ${snapshot.last_error}` : "";
    this.tell(".hidden-frames", "withheld-for", withholding ? `for ${age(stream.withheld_for)}${why}` : "");
    const error = stream.last_error ?? (withholding ? null : snapshot?.last_error) ?? "";
    this.tell(".error", "error", error);
    this.showAway(live ? outputs.filter((output) => output.there === false) : []);
    if (this.visible && !document.hidden && snapshot && (live || this.image.hidden)) this.refresh();
  }

  // A line that is there only where it has something to say.
  tell(line, field, text) {
    this.root.querySelector(line).hidden = !text;
    this.put(field, text);
  }

  // Outputs that do not take the stream, which goes on for the others.
  showAway(outputs) {
    const told = outputs.map(({ name, away, error }) => `${name} for ${age(away ?? 0)}${error ? `: ${error}` : ""}`);
    this.root.toggleAttribute("data-output-away", told.length > 0);
    this.tell(".away", "away", told.join("; "));
  }

  // Counters that grew in the last minute stand out.
  mark(numbers, now) {
    for (const [name, number] of Object.entries(numbers)) {
      const last = this.counters.get(name) ?? { number, grew: -Infinity };
      const grew = number > last.number ? now : last.grew;
      this.counters.set(name, { number, grew });
      this.root.querySelector(`[data-mark="${name}"]`).toggleAttribute("data-grew", now - grew < RECENTLY);
    }
  }

  async refresh() {
    if (this.asking) return;
    this.asking = true;
    try {
      const url = URL.createObjectURL(await preview(this.name));
      const old = this.image.src;
      this.image.src = url;
      await this.image.decode();
      this.image.hidden = false;
      this.root.querySelector(".no-picture").hidden = true;
      if (old) URL.revokeObjectURL(old);
    } catch {
      // The next second brings another; whether the server is there at all shows elsewhere.
    } finally {
      this.asking = false;
    }
  }
}
