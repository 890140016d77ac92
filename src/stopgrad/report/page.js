"use strict";
// Draws each figure of the page as it comes near the window, for a page may hold sixty; printing needs them all.
const dark = matchMedia("(prefers-color-scheme: dark)");
const waiting = new Map(), drawn = new Map();

for (const element of document.querySelectorAll(".plot")) {
  waiting.set(element, JSON.parse(element.querySelector("script").textContent));
  element.replaceChildren();
}

function draw(element, { data, layout }) {
  Plotly.react(element, data, themed(layout), config);
}

function show(element) {
  near.unobserve(element);
  if (!waiting.has(element)) return;
  drawn.set(element, waiting.get(element));
  waiting.delete(element);
  draw(element, drawn.get(element));
}

const near = new IntersectionObserver(
  (seen) => seen.filter((entry) => entry.isIntersecting).forEach((entry) => show(entry.target)),
  { rootMargin: "100% 0%" },
);
for (const element of waiting.keys()) near.observe(element);
addEventListener("beforeprint", () => [...waiting.keys()].forEach(show));
dark.addEventListener("change", () => drawn.forEach((figure, element) => draw(element, figure)));
