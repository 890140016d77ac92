"use strict";
// Draws every figure of the page.
const dark = matchMedia("(prefers-color-scheme: dark)");

const plots = [...document.querySelectorAll(".plot")].map((element) => {
  const { data, layout } = JSON.parse(element.querySelector("script").textContent);
  element.replaceChildren();
  return { element, data, layout };
});

function draw() {
  for (const { element, data, layout } of plots) {
    Plotly.react(element, data, themed(layout), config);
  }
}
draw();
dark.addEventListener("change", draw);
