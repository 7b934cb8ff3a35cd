// Elements without markup in strings: what comes from outside is text, never HTML.

export const $ = (id) => document.getElementById(id);

/** An element: attributes by name (true and false as presence), `on…` as listeners, then children. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(key, value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat());
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Words of a live region: the same ones again would be read out again. */
export const say = (element, words) => {
  if (element.textContent !== words) element.textContent = words;
};

/** +1.40, −0.30: a true minus sign, and a sign always. */
export const signed = (value, digits = 2) => {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value > 0 ? "+" : "−") + text;
};

/** A name among other words: a number after one in Arabic or Hebrew would move to its other side. */
export const isolated = (name) => (/[\u0590-\u08ff\u202a-\u202e\ufb1d-\ufefc]/.test(name) ? `\u2068${name}\u2069` : name);

/** Layers as 0–3, 5. */
export function span(layers) {
  const runs = [];
  for (const layer of [...layers].sort((a, b) => a - b)) {
    if (runs.length && layer === runs.at(-1)[1] + 1) runs.at(-1)[1] = layer;
    else runs.push([layer, layer]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
}

let fading;
export function toast(words) {
  say($("toast"), words);
  clearTimeout(fading);
  fading = setTimeout(() => ($("toast").textContent = ""), 4000);
}

/** Arrow keys walk along the buttons of a group; only one of them is in the tab order. */
export function roving(group, selector, { columns = () => 1 } = {}) {
  group.addEventListener("keydown", (event) => {
    const items = [...group.querySelectorAll(selector)];
    const at = items.indexOf(event.target.closest(selector));
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? items.length - 1 : step && at + step;
    if (at < 0 || to === undefined || !items[to]) return;
    event.preventDefault();
    items[at].tabIndex = -1;
    items[to].tabIndex = 0;
    items[to].focus();
  });
}
