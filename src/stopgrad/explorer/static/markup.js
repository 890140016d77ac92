// Parts of pages that the server has as HTML, with the data of their plots inside.
import { make } from "./page.js";

/** Fills an element with HTML of ours and draws its plots; a plot that was there stays, with new data. */
export async function fill(element, html) {
  const before = [...element.querySelectorAll(".plot")];
  const fresh = make("template");
  fresh.innerHTML = html;
  const plots = [...fresh.content.querySelectorAll(".plot")].map((plot, i) => {
    const { data, layout } = JSON.parse(plot.querySelector("script").textContent);
    const place = before[i] ?? make("div", { className: "plot" });
    place.style.height = plot.style.height;
    plot.replaceWith(place);
    return { place, data, layout };
  });
  const open = [...element.querySelectorAll("details")].map((one) => one.open);
  element.replaceChildren(fresh.content);
  element.querySelectorAll("details").forEach((one, i) => { one.open = open[i] ?? one.open; });
  for (const { place, data, layout } of plots) {
    await Plotly.react(place, recoloured(data), themed(recoloured(layout)), config);
  }
}
