// Parts of pages that the server has as HTML, with the data of their plots inside.
import { make } from "./page.js";

const drawn = new WeakMap(); // plot -> what was sent for it

/** Fills an element with HTML of ours and draws its plots. One that was there stays; if its data are new, with these. */
export async function fill(element, html) {
  const before = [...element.querySelectorAll(".plot")];
  const fresh = make("template");
  fresh.innerHTML = html;
  const places = [...fresh.content.querySelectorAll(".plot")].map((plot) => {
    const sent = plot.querySelector("script").textContent;
    return { plot, sent, place: take(before, (one) => drawn.get(one) === sent) };
  });
  const changed = places.filter(({ place }) => !place);
  for (const one of changed) one.place = before.shift() ?? make("div", { className: "plot" });
  for (const { plot, place } of places) {
    place.style.height = plot.style.height;
    plot.replaceWith(place);
  }
  const open = [...element.querySelectorAll("details")].map((one) => one.open);
  element.replaceChildren(fresh.content);
  element.querySelectorAll("details").forEach((one, i) => { one.open = open[i] ?? one.open; });
  for (const { place, sent } of changed) {
    drawn.set(place, sent);
    await draw(place);
  }
}

function draw(place) {
  const { data, layout } = JSON.parse(drawn.get(place));
  return Plotly.react(place, recoloured(data), themed(recoloured(layout)), config);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const place of document.querySelectorAll(".markup .plot")) if (drawn.has(place)) draw(place);
});

/** The first item that is wanted, taken out of the list. */
function take(list, wanted) {
  const i = list.findIndex(wanted);
  return i < 0 ? null : list.splice(i, 1)[0];
}
