"use strict";
// Draws each figure of the page as it comes near the window, for a page may hold sixty; printing needs them all.
const dark = matchMedia("(prefers-color-scheme: dark)");
const figures = new Map(), drawn = new Set();

function draw(element) {
  const { data, layout } = figures.get(element);
  Plotly.react(element, data, themed(layout), config);
}

function show(element) {
  if (drawn.has(element)) return;
  drawn.add(element);
  draw(element);
}

const near = new IntersectionObserver(
  (seen) => seen.filter((entry) => entry.isIntersecting).forEach((entry) => show(entry.target)),
  { rootMargin: "100% 0%" },
);
for (const element of document.querySelectorAll(".plot")) {
  figures.set(element, JSON.parse(element.querySelector("script").textContent));
  element.replaceChildren();
  near.observe(element);
}
// not what a filter hides: it has no width, and would keep the one that plotly takes then
addEventListener("beforeprint", () => [...figures.keys()].filter((one) => one.checkVisibility()).forEach(show));
dark.addEventListener("change", () => drawn.forEach(draw));
