// The theory under sliders: a view is pictures, and the controls that are their arguments.
import { control } from "./controls.js";
import { ask, copier, make, Picture } from "./page.js";

const REST = 250; // ms without a change after which the address follows, and the slow part of a picture

export class Dynamics {
  static views = null;

  constructor(root) {
    this.root = root;
  }

  async enter(name, query) {
    Dynamics.views ??= await ask("/api/views");
    this.view = Dynamics.views.find((view) => view.name === name) ?? Dynamics.views[0];
    document.title = `${this.view.title} – stopgrad explorer`;
    this.controls = this.view.controls.map((one) => control(one, query.get(one.name), () => this.changed()));
    this.pictures = [];
    this.regime = make("div", { className: "regime", role: "status" });
    this.charts = make("div", { className: "pictures" });
    this.measured = make("div", { className: "pictures" });
    const form = make("form", { className: "controls", ariaLabel: "Parameters" });
    form.append(...this.controls.map((one) => one.element), this.buttons());
    form.addEventListener("submit", (event) => event.preventDefault());
    this.root.replaceChildren(
      this.tabs(),
      make("section", {}, make("h1", { textContent: this.view.title }), make("p", { textContent: this.view.about })),
      make("div", { className: "lab" }, form, make("div", {}, this.regime, this.charts, this.measured)),
    );
    this.keepApart();
    await this.update(true);
  }

  /** Two choices of one thing, such as the axes of a picture, exclude each other. */
  keepApart() {
    const [one, other] = (this.view.apart ?? []).map((name) => this.controls.find((control) => control.name === name));
    one?.except(other.value);
    other?.except(one.value);
  }

  leave() {
    clearTimeout(this.resting);
    this.slowAsked?.abort();
    this.left = true;
  }

  tabs() {
    const links = Dynamics.views.map((view) => {
      const link = make("a", { href: `/dynamics/${view.name}`, textContent: view.tab });
      if (view === this.view) link.setAttribute("aria-current", "page");
      return link;
    });
    return make("nav", { className: "tabs", ariaLabel: "Views of the theory" }, ...links);
  }

  buttons() {
    const all = (key) => this.answer.pictures.map((picture) => picture[key]).join("\n");
    const reset = make("button", { type: "button", textContent: "Reset" });
    reset.addEventListener("click", () => {
      for (const one of this.controls) one.value = one.initial;
      this.changed();
    });
    return make("div", { className: "buttons" },
      copier("Copy link", () => this.address()),
      copier("Copy as command", () => all("command")),
      copier("Copy as Python", () => all("python")),
      reset,
    );
  }

  /** The query of what differs from the beginning: the address stays short. */
  query() {
    const changed = this.controls.filter((one) => one.value !== one.initial);
    return new URLSearchParams(changed.map((one) => [one.name, one.value === null ? "off" : String(one.value)]));
  }

  /** Whether the slow part would add anything. */
  slow() {
    const { slow, slow_without: without } = this.view;
    return slow && this.controls.find((one) => one.name === without).value === null;
  }

  changed() {
    this.keepApart();
    clearTimeout(this.resting);
    const slow = this.slow();
    this.update(!slow);
    this.resting = setTimeout(() => {
      this.address();
      if (slow) this.update(true);
    }, REST);
  }

  /** Puts the state into the address: at rest, since a browser bears few changes of it in a second. */
  address() {
    const query = this.query().toString();
    history.replaceState(null, "", `/dynamics/${this.view.name}${query ? `?${query}` : ""}`);
    return location.href;
  }

  /** Asks for the pictures; one request is under way at a time, and the last state is always asked for. */
  async update(whole) {
    this.wanted = { whole };
    this.slowAsked?.abort(); // what takes longer is out of date
    if (this.busy) return;
    this.busy = true;
    while (this.wanted && !this.left) {
      const { whole: slow } = this.wanted;
      this.wanted = null;
      this.slowAsked = slow && this.slow() ? new AbortController() : null;
      try {
        const answer = await ask(`/api/views/${this.view.name}?${this.request(slow)}`, this.slowAsked?.signal);
        this.slowAsked = null;
        await this.draw(answer);
      } catch (error) {
        if (error.name === "AbortError") continue;
        this.regime.replaceChildren(make("p", { className: "wrong", textContent: error.message }));
      }
    }
    this.busy = false;
  }

  /** What was trained over the same axes, below; asked for when the axes change. */
  async trained() {
    const axes = String(this.view.apart.map((name) => this.controls.find((one) => one.name === name).value));
    if (axes === this.axes) return;
    this.axes = axes;
    const { pictures } = await ask(`/api/views/${this.view.name}/trained?${this.request(false)}`);
    if (axes !== this.axes || this.left) return;
    const drawn = pictures.map(() => new Picture());
    pictures.forEach(({ name }, i) => drawn[i].element.append(make("a", { href: `/ledger/${name}`, textContent: name })));
    this.measured.replaceChildren(...drawn.map((one) => one.element));
    await Promise.all(pictures.map((content, i) => drawn[i].draw(content)));
  }

  request(slow) {
    const values = this.controls.map((one) => [one.name, one.value ?? "off"]);
    if (this.view.slow) values.push([this.view.slow, slow]);
    return new URLSearchParams(values);
  }

  async draw(answer) {
    this.answer = answer;
    while (this.pictures.length < answer.pictures.length) {
      const picture = new Picture();
      if (!this.pictures.length && this.view.click) picture.onClick((x, y) => this.place(x, y));
      this.pictures.push(picture);
      this.charts.append(picture.element);
    }
    if (this.view.says) {
      const [first] = answer.pictures;
      this.regime.replaceChildren(...first.reading.map((line) => make("p", { textContent: line })));
      first.reading = [];
    }
    await Promise.all(answer.pictures.map((content, i) => this.pictures[i].draw(content)));
    if (this.view.trained) await this.trained();
  }

  /** A click into the plane is a start. */
  place(x, y) {
    this.view.click.forEach((name, i) => {
      this.controls.find((one) => one.name === name).value = [x, y][i];
    });
    this.changed();
  }
}
