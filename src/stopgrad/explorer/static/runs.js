// The given runs: a list and a comparison, and one run's report, which follows it while it trains.
import { fill } from "./markup.js";
import { ask, copier, make, Picture, plotly } from "./page.js";

const PAUSE = 1500; // ms between two redrawings of a live run

export class Runs {
  constructor(root) {
    this.root = root;
  }

  async enter(name, query) {
    return name ? this.one(name) : this.every(query);
  }

  leave() {
    this.left = true;
    this.stream?.close();
  }

  async every(query) {
    document.title = "Runs – stopgrad explorer";
    const { runs, measures } = await ask("/api/runs");
    const heading = make("section", {}, make("h1", { textContent: "Runs" }));
    this.root.replaceChildren(heading);
    if (!runs.length) {
      heading.append(make("p", { textContent: "No run was given: stopgrad explore RUN [RUN ...]" }));
      return;
    }
    const asked = query.getAll("run");
    this.boxes = runs.map((run, i) => make("input", {
      type: "checkbox", value: run.name, ariaLabel: `compare ${run.name}`, disabled: "problem" in run,
      checked: !("problem" in run) && (asked.length ? asked.includes(run.name) : i < 6),
    }));
    this.measure = make("select", {}, ...Object.entries(measures).map(([value, textContent]) => make("option", { value, textContent })));
    this.measure.value = query.get("measure") in measures ? query.get("measure") : Object.keys(measures)[0];
    heading.append(this.table(runs));
    this.picture = new Picture();
    this.root.append(make("section", {}, make("h2", { textContent: "Compared" }),
      make("label", { className: "choice narrow" }, "measure", this.measure), this.picture.element));
    for (const one of [...this.boxes, this.measure]) one.addEventListener("change", () => this.compare());
    await this.compare();
  }

  table(runs) {
    const head = ["", "run", "method", "data", "epoch", "kNN", "linear probe", "verdict"];
    const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
    const lines = runs.map((run, i) => {
      const link = make("a", { href: `/runs/${encodeURIComponent(run.name)}`, textContent: run.name });
      const cells = "problem" in run ? [make("td", { colSpan: 6, className: "wrong", textContent: run.problem })] : [
        run.method ?? "–", run.data ?? "–", run.epoch ?? "–", percent(run.knn), percent(run.linear_probe), run.verdict ?? "training",
      ].map((value) => make("td", { textContent: value }));
      return make("tr", {}, make("td", {}, this.boxes[i]), make("td", {}, link), ...cells);
    });
    return make("div", { className: "scroll tall", tabIndex: 0, role: "region", ariaLabel: "Runs" }, make("table", {},
      make("thead", {}, make("tr", {}, ...head.map((textContent) => make("th", { textContent, scope: "col" })))),
      make("tbody", {}, ...lines)));
  }

  async compare() {
    const query = new URLSearchParams([
      ...this.boxes.filter((box) => box.checked).map((box) => ["run", box.value]), ["measure", this.measure.value],
    ]);
    history.replaceState(null, "", `/runs?${query}`);
    if (!query.has("run")) return;
    await this.picture.draw(await ask(`/api/compare?${query}`));
  }

  /** The map of the embedding comes apart, since the server computes it for seconds. */
  async map(section, address) {
    const note = section.querySelector(".note");
    try {
      const html = await ask(address);
      const drawn = make("div");
      note.replaceWith(drawn);
      await fill(drawn, html);
    } catch (error) {
      note.textContent = error.message;
    }
  }

  async one(name) {
    document.title = `${name} – stopgrad explorer`;
    const header = make("div");
    const body = make("div", { className: "markup" });
    const live = make("p", { className: "note", role: "status" });
    const buttons = make("div", { className: "buttons" }, copier("Copy link", () => location.href),
      copier("Copy as command", () => `stopgrad diagnose ${name}`));
    this.root.replaceChildren(make("p", {}, make("a", { href: "/runs", textContent: "All runs" })),
      make("section", { className: "markup" }, header, buttons), live, body);
    const address = `/api/runs/${encodeURIComponent(name)}`;
    let wanted = true, busy = false, asked = `${address}/outline`;
    const refresh = async () => {
      if (busy) return;
      busy = true;
      while (wanted && !this.left) {
        wanted = false;
        const [report] = await Promise.all([ask(asked), plotly]);
        asked = address;
        await fill(header, report.header);
        await fill(body, report.sections.join(""));
        if (!report.whole) { // the rest takes the server longer
          wanted = true;
          continue;
        }
        if (report.evaluated) this.map(body.querySelector("#map"), `${address}/map`);
        live.textContent = `As of ${new Date().toLocaleTimeString()}${report.ended ? "; the run has ended." : "; the page follows the run."}`;
        await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
      }
      busy = false;
    };
    this.stream = new EventSource(`${address}/events`);
    this.stream.onmessage = () => { wanted = true; refresh(); };
    await refresh();
  }
}
