// Controls of a view. Each has: name, element, initial, value (a number, a word, or null where switched off).
import { make } from "./page.js";

const NOTCHES = 500;

export function control(about, given, tell) {
  return about.kind === "choice" ? new Choice(about, given, tell) : new Slider(about, given, tell);
}

class Choice {
  constructor(about, given, tell) {
    this.name = about.name;
    this.initial = about.default;
    const options = Object.entries(about.options).map(([value, textContent]) => make("option", { value, textContent }));
    this.select = make("select", {}, ...options);
    this.select.value = given in about.options ? given : about.default;
    this.select.addEventListener("change", tell);
    this.element = make("label", { className: "choice" }, about.label, this.select);
  }

  /** Leaves out the value that another choice has. */
  except(value) {
    for (const option of this.select.options) option.disabled = option.value === value;
  }

  get value() { return this.select.value; }
  set value(value) { this.select.value = value; }
}

class Slider {
  constructor(about, given, tell) {
    Object.assign(this, about);
    this.initial = about.default;
    const id = `control-${about.name}`;
    this.range = make("input", { type: "range", id, min: 0, max: NOTCHES, step: "any" });
    if (about.whole) Object.assign(this.range, { min: about.low, max: about.high, step: 1 });
    else this.range.step = 1;
    this.number = make("input", { type: "number", step: about.whole ? 1 : "any", min: about.low, max: about.high });
    this.number.setAttribute("aria-label", `${about.label}, as a number`);
    this.element = make("div", { className: "slider" }, make("label", { htmlFor: id, textContent: about.label }), this.number, this.range);
    if (about.off !== null) this.addSwitch(tell);
    this.value = this.read(given);
    this.range.addEventListener("input", () => { this.set(this.at(Number(this.range.value))); tell(); });
    this.number.addEventListener("change", () => { this.set(this.within(Number(this.number.value))); tell(); });
  }

  addSwitch(tell) {
    this.switch = make("input", { type: "checkbox" });
    this.switch.addEventListener("change", () => {
      this.value = this.switch.checked ? null : this.last ?? this.initial ?? this.high;
      tell();
    });
    this.element.append(make("label", { className: "off" }, this.switch, ` ${this.off}`));
  }

  /** The address's value, or the first. */
  read(given) {
    if (given === null || given === "") return this.initial;
    if (given === "off" && this.off !== null) return null;
    const number = Number(given);
    return Number.isFinite(number) ? this.within(number) : this.initial;
  }

  within(value) {
    const inside = Math.min(this.high, Math.max(this.low, value));
    return this.whole ? Math.round(inside) : inside;
  }

  get value() { return this.current; }

  set value(value) { this.set(value === null ? null : this.within(value)); }

  set(value) {
    this.current = value === null ? null : Number(value.toPrecision(4));
    if (this.switch) this.switch.checked = value === null;
    for (const input of [this.range, this.number]) input.disabled = value === null;
    if (value === null) { this.number.value = ""; return; }
    this.last = this.current;
    this.number.value = this.current;
    this.range.value = this.notch(this.current);
    this.range.setAttribute("aria-valuetext", String(this.current));
  }

  /** The slider's place of a value; the logarithm's, where that is the scale, with 0 on the first notch. */
  notch(value) {
    if (this.whole) return value;
    if (this.scale === "linear") return (NOTCHES * (value - this.low)) / (this.high - this.low);
    const first = this.scale === "log0" ? 1 : 0, low = first ? this.least : this.low;
    if (value < low) return 0;
    return first + ((NOTCHES - first) * Math.log(value / low)) / Math.log(this.high / low);
  }

  at(notch) {
    if (this.whole) return notch;
    if (this.scale === "linear") return this.low + ((this.high - this.low) * notch) / NOTCHES;
    const first = this.scale === "log0" ? 1 : 0, low = first ? this.least : this.low;
    if (notch < first) return 0;
    return low * (this.high / low) ** ((notch - first) / (NOTCHES - first));
  }
}
