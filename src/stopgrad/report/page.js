"use strict";
// Draws every figure of the page in the colours of its light or dark style.
const dark = matchMedia("(prefers-color-scheme: dark)");

const config = {
  responsive: true,
  displaylogo: false,
  // without a mouse the buttons would lie on the legend for good
  displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
  modeBarButtons: [["toImage", "resetScale2d"]],
};

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const copy = structuredClone(layout);
  copy.font.color = colour("--text");
  copy.hoverlabel = { bgcolor: colour("--card"), bordercolor: colour("--grid"), font: { color: colour("--text") } };
  copy.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--quiet"), activecolor: colour("--text") };
  for (const name of Object.keys(copy).filter((key) => /^[xy]axis\d*$/.test(key))) {
    Object.assign(copy[name], { gridcolor: colour("--grid"), linecolor: colour("--grid") });
  }
  return copy;
}

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
