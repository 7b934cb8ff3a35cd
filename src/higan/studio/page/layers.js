// A strip of layers to switch on and off, by a click, by dragging across, or by keys; bars tell what each would do.

import { h, roving } from "./dom.js";

const MOST_IN_A_ROW = 18; // or their numbers would be cut off
const AFTERWARDS = 500; // milliseconds within which the click that ends a press comes

/**
 * `profile` are values per layer, drawn under it; `change(layers, over)` hears every change, and whether it is over.
 */
export function layerStrip(study, { label, profile = null, change }) {
  const count = study.generator.layers;
  const starts = new Set(Object.values(study.stages).map((layers) => layers[0]).filter(Boolean));
  const stageOf = (layer) => Object.entries(study.stages).find(([, layers]) => layers.includes(layer))[0];
  const top = Math.max(...(profile ?? [0]), 1e-9);
  let chosen = new Set();
  let painting = null;
  let painted = -Infinity;

  const buttons = Array.from({ length: count }, (_, layer) => {
    const words = `Layer ${layer}, ${stageOf(layer)}` + (profile ? `: ${profile[layer].toFixed(2)} σ by itself` : "");
    const bar = h("i");
    bar.style.setProperty("--h", `${profile ? (20 * profile[layer]) / top : 0}px`);
    return h("button", {
      type: "button", "aria-pressed": "false", "aria-label": words, title: words, "data-layer": layer,
      tabindex: layer ? -1 : 0, class: starts.has(layer) ? "starts" : null,
    }, h("span", { class: "cell" }, `${layer}`), h("span", { class: "depth" }, profile ? bar : ""));
  });
  const element = h("div", { class: "layers", role: "group", "aria-label": label }, ...buttons);
  const inRow = Math.ceil(count / Math.ceil(count / MOST_IN_A_ROW));
  element.style.setProperty("--n", inRow);

  function put(layer, on, over) {
    if (chosen.has(layer) !== on) {
      chosen = new Set(chosen);
      if (on) chosen.add(layer);
      else chosen.delete(layer);
    }
    change([...chosen].sort((a, b) => a - b), over);
  }

  const layerAt = (event) => {
    const found = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-layer]");
    return found && element.contains(found) ? +found.dataset.layer : null;
  };
  element.addEventListener("pointerdown", (event) => {
    const layer = layerAt(event);
    if (layer === null || event.button > 0) return;
    event.preventDefault();
    buttons[layer].focus();
    painting = !chosen.has(layer);
    element.setPointerCapture(event.pointerId);
    put(layer, painting, false);
  });
  element.addEventListener("pointermove", (event) => {
    const layer = painting === null ? null : layerAt(event);
    if (layer !== null && chosen.has(layer) !== painting) put(layer, painting, false);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    element.addEventListener(end, (event) => {
      if (painting === null) return;
      painting = null;
      painted = event.timeStamp;
      change([...chosen].sort((a, b) => a - b), true);
    });
  }
  // Keys and assistive technology send a click alone, of which they often count none.
  element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-layer]");
    if (!button || (event.detail && event.timeStamp - painted < AFTERWARDS)) return;
    const layer = +button.dataset.layer;
    put(layer, !chosen.has(layer), true);
  });
  roving(element, "button", { columns: () => inRow });

  return {
    element,
    set(layers) {
      if (painting !== null) return paint();
      chosen = new Set(layers);
      paint();
    },
  };

  function paint() {
    buttons.forEach((button, layer) => {
      const pressed = `${chosen.has(layer)}`;
      if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
    });
  }
}
