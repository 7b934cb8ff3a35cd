// Concepts by level, strongest first: a slider, its interval, and the layers it moves.

import { $, h, signed, span, svg } from "./dom.js";
import { layerStrip } from "./layers.js";

const MANY = 24; // concepts from which on nobody wants to scroll for one

export class Sliders {
  #rows = new Map();

  constructor(looks, study, responses) {
    Object.assign(this, { looks, study, responses });
    $("finding").textContent = study.finding;
    const strongest = Math.max(...study.concepts.map((concept) => concept.high), 1e-9);
    for (const level of study.levels) {
      const concepts = study.concepts.filter((concept) => concept.level === level.name);
      if (!concepts.length) continue;
      $("levels").append(
        h("section", { class: `level level-${level.name}`, "aria-label": level.label },
          h("h2", {}, level.label[0].toUpperCase() + level.label.slice(1), h("small", {}, `${concepts.length} verified`)),
          ...concepts.map((concept) => this.#row(concept, strongest)),
        ),
      );
    }
    if (!study.concepts.length) {
      const none = study.tried === 1 ? "The only concept does not beat random directions" : `None of ${study.tried} concepts beats random directions`;
      $("levels").append(h("p", { class: "soft" }, `${none}: there is nothing to move here. Probe more samples, or try another scorer.`));
    }
    $("find").hidden = study.concepts.length <= MANY;
    $("sought").addEventListener("input", () => this.#seek());
    looks.addEventListener("change", () => this.update());
    responses.addEventListener("change", () => this.update(true));
    this.update();
  }

  #row(concept, strongest) {
    const id = `concept-${this.#rows.size}`;
    const slider = h("input", {
      type: "range", id, min: -concept.limit, max: concept.limit, step: concept.limit / 100, value: 0,
      "aria-describedby": `${id}-note`, "data-concept": concept.name,
      oninput: () => this.#move(concept, +slider.value, false),
      onchange: () => this.#move(concept, +slider.value, true),
      ondblclick: () => this.#move(concept, 0, true),
      onkeydown: (event) => {
        if (event.key === "Delete" || event.key === "Backspace") { event.preventDefault(); this.#move(concept, 0, true); }
      },
    });
    // The slider says it itself, in more words; read out again it would say everything twice.
    const output = h("output", { for: id, "aria-live": "off" });
    const where = h("span", { class: "where" });
    const zero = h("button", { class: "link", onclick: () => this.#move(concept, 0, true), "aria-label": `${concept.label} back to zero` }, "reset");
    const proper = h("button", { class: "link", title: "Back to the recommended layers", onclick: () => this.#where(concept, concept.layers, true) }, named(concept.layers));
    const strip = layerStrip(this.study, {
      label: `Layers that ${concept.label} moves`, profile: concept.profile,
      change: (layers, over) => this.#where(concept, layers, over),
    });
    const more = h("div", { class: "more" }, strip.element);
    const element = h("div", { class: `concept level-${concept.level}` },
      h("div", { class: "top" }, h("label", { for: id }, concept.label), proper, zero, output),
      slider,
      h("div", { class: "bottom", id: `${id}-note` }, interval(concept, strongest),
        `Δs ${concept.effect.toFixed(2)} [${concept.low.toFixed(2)}, ${concept.high.toFixed(2)}]`, where),
      more,
    );
    // Opened at a press of a button, the layers of the row before would close and move the button from under it.
    element.addEventListener("focusin", (event) => event.target.matches("button.link") || this.#open(concept.name));
    element.addEventListener("click", () => this.#open(concept.name));
    this.#rows.set(concept.name, { concept, element, slider, output, where, strip, more, proper, zero });
    return element;
  }

  #edit(concept) {
    const { edits } = this.looks.now; // every object has a constructor, and so may a study
    return Object.hasOwn(edits, concept.name) ? edits[concept.name] : { strength: 0, layers: concept.layers };
  }

  #move(concept, strength, over) {
    this.focused = concept.name;
    // Held arrow keys are one step to undo.
    this.#put(concept, { ...this.#edit(concept), strength }, over, concept.name);
  }

  #where(concept, layers, over) {
    this.focused = concept.name;
    this.#put(concept, { ...this.#edit(concept), layers }, over);
  }

  #put(concept, edit, over, tag = "") {
    const look = { ...this.looks.now, edits: { ...this.looks.now.edits, [concept.name]: edit } };
    if (over) this.looks.settle(look, tag);
    else this.looks.move(look);
  }

  /** One concept at a time shows its layers, beside those that are moved. */
  #open(name) {
    if (this.opened === name) return;
    this.opened = name;
    this.focused = name;
    this.update();
  }

  /** Concepts with all the words that are sought stay in view, and those that are moved. */
  #seek() {
    const words = $("sought").value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const { concept, element, moved } of this.#rows.values()) {
      const fits = words.every((word) => concept.label.toLowerCase().includes(word));
      found += fits;
      element.hidden = !fits && !moved;
    }
    for (const level of document.querySelectorAll("#levels > .level")) level.hidden = !level.querySelector(".concept:not([hidden])");
    $("found").textContent = words.length ? `${found} of ${this.#rows.size}` : "";
  }

  update(again = false) {
    for (const row of this.#rows.values()) {
      const { concept, element, slider, output, where, strip, more, proper, zero } = row;
      const { strength, layers } = this.#edit(concept);
      // While one slider is dragged the others need no work.
      const state = `${strength} ${layers} ${this.opened === concept.name}`;
      if (row.state === state && !again) continue;
      row.state = state;
      const moved = row.moved = Boolean(strength && layers.length);
      if (+slider.value !== strength) slider.value = strength;
      const at = 50 + 50 * Math.max(-1, Math.min(1, strength / concept.limit));
      slider.style.setProperty("--from", `${Math.min(50, at)}%`);
      slider.style.setProperty("--to", `${Math.max(50, at)}%`);
      const usual = span(layers) === span(concept.layers);
      const sigmas = this.responses.at(concept, { strength, layers });
      output.textContent = moved ? amount(concept, { strength, layers }, this.responses) : "0";
      zero.hidden = !moved;
      output.title = moved ? `λ = ${signed(strength, 2)}` + (sigmas === null ? "" : `, which moves the score by ${signed(sigmas, 2)} standard deviations on average`) : "";
      slider.setAttribute("aria-valuetext", !moved ? "not moved" : sigmas === null ? `λ = ${signed(strength, 1)}` : `${signed(sigmas, 1)} standard deviations`);
      where.textContent = layers.length ? named(layers) : "no layers";
      element.classList.toggle("moved", moved);
      if (moved && element.hidden) this.#seek(); // a link or undo moved it
      more.hidden = !(moved || this.opened === concept.name);
      proper.hidden = usual;
      strip.set(layers);
    }
  }
}

const named = (layers) => `layer${layers.length > 1 ? "s" : ""} ${span(layers)}`;

/** A small move is not none: with one digit it would read 0.0. */
const short = (value) => signed(value, Math.abs(value) < 0.1 ? 2 : 1);

/** An edit in words: the standard deviations by which it moves the score on average where that is known, else its length. */
export function amount(concept, edit, responses) {
  const sigmas = responses.at(concept, edit);
  return sigmas === null ? `λ = ${short(edit.strength)}` : `${short(sigmas)} σ`;
}

/** Δs as a bar with its interval. */
function interval(concept, strongest) {
  const scale = 86 / strongest;
  return svg("svg", { class: "spark", viewBox: "0 0 88 12", "aria-hidden": "true" },
    svg("rect", { class: "bar", x: 0, y: 2, width: concept.effect * scale, height: 8, rx: 1 }),
    svg("line", { class: "whisker", x1: concept.low * scale, x2: Math.max(concept.high * scale, concept.low * scale + 1), y1: 6, y2: 6 }));
}
