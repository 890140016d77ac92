// The claims of the papers: a list that can be narrowed, and one claim as its page has it.
import { fill } from "./markup.js";
import { ask, copier, make, plotly } from "./page.js";

const FILTERS = ["paper", "verdict"];

export class Ledger {
  constructor(root) {
    this.root = root;
  }

  async enter(name, query) {
    return name ? this.one(name) : this.every(query);
  }

  async every(query) {
    document.title = "Ledger – stopgrad explorer";
    this.claims = await ask("/api/ledger");
    const heading = make("section", {}, make("h1", { textContent: "The ledger of claims" }), make("p", {
      textContent: "Every theorem, table and figure of the papers is an experiment whose rule was fixed before the run.",
    }));
    this.selects = FILTERS.map((key) => this.filter(key, query.get(key)));
    this.rows = make("tbody");
    const head = ["claim", "", "verdict", "what decided", "seeds"].map((textContent) => make("th", { textContent, scope: "col" }));
    this.count = make("p", { className: "note", role: "status" });
    this.root.replaceChildren(heading, make("section", {},
      make("div", { className: "filters" }, ...this.selects.map((one) => one.label)), this.count,
      make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Claims" },
        make("table", {}, make("thead", {}, make("tr", {}, ...head)), this.rows))));
    this.list();
  }

  filter(key, given) {
    const words = ["", ...new Set(this.claims.map((claim) => claim[key]))];
    const select = make("select", {}, ...words.map((value) => make("option", { value, textContent: value || "all" })));
    select.value = words.includes(given) ? given : "";
    select.addEventListener("change", () => this.list());
    return { key, select, label: make("label", { className: "choice" }, key, select) };
  }

  list() {
    const chosen = this.selects.filter((one) => one.select.value);
    const query = new URLSearchParams(chosen.map((one) => [one.key, one.select.value])).toString();
    history.replaceState(null, "", `/ledger${query ? `?${query}` : ""}`);
    const shown = this.claims.filter((claim) => chosen.every((one) => claim[one.key] === one.select.value));
    this.count.textContent = `${shown.length} of ${this.claims.length} claims`;
    this.rows.replaceChildren(...shown.map((claim) => make("tr", {},
      make("td", {}, make("a", { href: `/ledger/${claim.id}`, textContent: claim.id })),
      make("td", { textContent: claim.title }),
      make("td", {}, make("span", { className: `badge ${claim.tone}`, textContent: claim.verdict })),
      make("td", { textContent: claim.why }),
      make("td", { className: "number", textContent: claim.seeds }))));
  }

  async one(name) {
    document.title = `${name} – stopgrad explorer`;
    const claim = await ask(`/api/ledger/${encodeURIComponent(name)}`);
    const body = make("div", { className: "markup" });
    const back = make("p", {}, make("a", { href: "/ledger", textContent: "All claims" }));
    const buttons = make("div", { className: "buttons" }, copier("Copy link", () => location.href),
      copier("Copy as command", () => claim.command));
    this.root.replaceChildren(back, body, buttons);
    await plotly;
    await fill(body, claim.html);
  }
}
