// Finds the view of the address, and keeps the address that of the view.
import { Dynamics } from "./dynamics.js";
import { Ledger } from "./ledger.js";
import { Runs } from "./runs.js";

const PARTS = { dynamics: Dynamics, runs: Runs, ledger: Ledger };
const main = document.getElementById("view");
let shown = null;

async function show() {
  const [part = "", item = ""] = location.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  const name = part in PARTS ? part : "dynamics";
  for (const link of document.querySelectorAll("nav[aria-label=Parts] a")) {
    const here = link.pathname === `/${name}`;
    link.toggleAttribute("aria-current", here);
    if (here) link.setAttribute("aria-current", "page");
  }
  shown?.leave?.();
  const root = document.createElement("div");
  main.replaceChildren(root);
  shown = new PARTS[name](root);
  try {
    await shown.enter(item, new URLSearchParams(location.search));
  } catch (error) {
    root.replaceChildren(Object.assign(document.createElement("p"), { textContent: error.message, role: "alert" }));
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || link.target) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  show();
  main.focus({ preventScroll: true });
});
addEventListener("popstate", show);
show();
