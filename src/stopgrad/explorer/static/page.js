// What all views share: elements, requests, pictures, and what is said aloud.

/** An element: its properties, then children (elements or text). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The JSON of an address of ours; a refusal becomes an Error with the server's own words. */
export async function ask(address, signal) {
  const answer = await fetch(address, { signal });
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const detail = content.detail;
  const words = Array.isArray(detail) ? detail.map((one) => `${one.loc.at(-1)}: ${one.msg}`).join("; ") : detail;
  throw new Error(words ?? `${address}: ${answer.status} ${answer.statusText}`);
}

/** Says a line to screen readers, and shows it for a while. */
export function say(words) {
  const said = document.getElementById("said");
  said.textContent = words;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { said.textContent = ""; }, 4000);
}

/** A button that copies a text which is made when it is pressed. */
export function copier(label, text) {
  const button = make("button", { type: "button", textContent: label });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      say(`${label}: copied`);
    } catch {
      say(text());
    }
  });
  return button;
}

/** Resolves once plotly's script has run. */
export const plotly = new Promise((resolve) => {
  if (window.Plotly) resolve();
  else addEventListener("load", () => resolve(), { once: true });
});

const COLUMN = 205; // px that a panel of several needs; a narrow screen scrolls

const NUMBERS = { f8: Float64Array, f4: Float32Array, i4: Int32Array, u1: Uint8Array };

/** An array of numbers out of the bytes that the server sends. */
function numbers(sent) {
  if (!sent?.bdata || sent.shape) return sent;
  return new NUMBERS[sent.dtype](Uint8Array.from(atob(sent.bdata), (one) => one.charCodeAt(0)).buffer);
}

const AT_ONCE = { mode: "immediate", transition: { duration: 0 }, frame: { duration: 0, redraw: false } };

/** A picture that is redrawn in place, in the page's colours. */
export class Picture {
  constructor() {
    this.plot = make("div", { className: "plot" });
    this.heading = make("h3");
    this.reading = make("figcaption");
    this.element = make("figure", {}, this.heading, make("div", { className: "wide" }, this.plot), this.reading);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  async draw(content) {
    this.content = content;
    this.heading.textContent = plain(content.heading);
    this.heading.hidden = !content.heading;
    this.reading.textContent = content.reading.map(plain).join(" ");
    await plotly;
    await this.redraw();
  }

  /** All of it, or where only points of lines have moved, these alone, which takes plotly a third of the time. */
  redraw() {
    if (!this.content) return undefined;
    const { data: sent, layout: plain, above } = this.content;
    const data = recoloured(sent).map((trace) => ({ ...trace, x: numbers(trace.x), y: numbers(trace.y) }));
    const layout = themed(recoloured(plain));
    const frame = JSON.stringify([layout, data.map((trace) => ({ ...trace, x: null, y: null }))]);
    const moved = frame === this.frame && data.every((trace) => trace.type === "scatter");
    this.frame = frame;
    if (moved) {
      const points = data.map(({ x, y }) => ({ x, y }));
      return Plotly.animate(this.plot, { data: points, traces: [...points.keys()] }, AT_ONCE);
    }
    const top = Math.min(above, layout.annotations?.some((one) => one.text) ? 34 : 14);
    layout.height += top - above;
    layout.margin.t = top;
    if (this.clicked) layout.dragmode = false;
    this.plot.style.height = `${layout.height}px`;
    const columns = new Set(Object.keys(layout).filter((key) => key.startsWith("xaxis")).map((key) => String(layout[key].domain)));
    this.plot.style.minWidth = columns.size > 1 ? `${COLUMN * columns.size}px` : "";
    return Plotly.react(this.plot, data, layout, config);
  }

  /** Calls back with the place of a click in the first panel, in its own units. */
  onClick(tell) {
    this.clicked = true;
    this.plot.style.cursor = "crosshair";
    this.plot.addEventListener("click", (event) => {
      const { xaxis, yaxis } = this.plot._fullLayout ?? {};
      if (!xaxis) return;
      const box = this.plot.getBoundingClientRect();
      const x = event.clientX - box.left - xaxis._offset, y = event.clientY - box.top - yaxis._offset;
      if (x >= 0 && x <= xaxis._length && y >= 0 && y <= yaxis._length) tell(xaxis.p2d(x), yaxis.p2d(y));
    });
  }
}

/** Plotly's few tags, as text: subscripts are Unicode's where it has them. */
function plain(html) {
  return html.replace(/<sub>(.*?)<\/sub>/g, "_$1").replace(/<sup>T<\/sup>/g, "ᵀ").replace(/<[^>]+>/g, "");
}
