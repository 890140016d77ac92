// How every figure is drawn, in reports and in the explorer: in the colours of the page's light or dark style.
const config = {
  responsive: true,
  displaylogo: false,
  // without a mouse the buttons would lie on the legend for good
  displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
  modeBarButtons: [["toImage", "resetScale2d"]],
};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Data or layout with the inks of a white page replaced by the page's own: lines that a dark page would swallow.
function recoloured(content) {
  const inks = { "#1c2128": colour("--text"), "#5b6572": colour("--quiet"), "#ffffff": colour("--card") };
  return JSON.parse(JSON.stringify(content), (_, value) => inks[value] ?? value);
}

function themed(layout) {
  const copy = structuredClone(layout), grid = colour("--grid");
  copy.paper_bgcolor = copy.plot_bgcolor = "rgba(0,0,0,0)";
  copy.font = { ...copy.font, color: colour("--text") };
  copy.hoverlabel = { bgcolor: colour("--card"), bordercolor: colour("--grid"), font: { color: colour("--text") } };
  copy.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--quiet"), activecolor: colour("--text") };
  for (const name of Object.keys(copy).filter((key) => /^[xy]axis\d*$/.test(key))) {
    Object.assign(copy[name], { gridcolor: grid, linecolor: grid });
  }
  return copy;
}
