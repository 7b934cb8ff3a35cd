// How far a concept's score moves with its slider, measured when it is first moved: it does not go up in a straight line.

import { ask } from "./api.js";
import { span } from "./dom.js";
import { sent } from "./look.js";

/** Listeners hear "change" when another curve is known. */
export class Responses extends EventTarget {
  #curves = new Map();
  #line = Promise.resolve(); // one at a time: each may hold one of the browser's few connections for minutes

  constructor(looks, study) {
    super();
    this.study = study;
    if (!study.scored) return;
    const look = () => sent(looks.now).edits.forEach(({ concept, layers }) => this.#want(concept, layers));
    looks.addEventListener("settle", look);
    look();
  }

  /** Standard deviations by which the score moves on average; null where that is not known. */
  at(concept, { strength, layers }) {
    const curve = this.#curves.get(concept.name);
    if (!curve?.steps || span(layers) !== span(concept.layers)) return null;
    const k = curve.steps.findIndex((step) => step >= strength);
    if (k < 0 || strength < curve.steps[0]) return null;
    if (k === 0) return curve.sigmas[0];
    const share = (strength - curve.steps[k - 1]) / (curve.steps[k] - curve.steps[k - 1]);
    return curve.sigmas[k - 1] + share * (curve.sigmas[k] - curve.sigmas[k - 1]);
  }

  #want(name, layers) {
    const concept = this.study.concepts.find((known) => known.name === name);
    if (this.#curves.has(name) || span(layers) !== span(concept.layers)) return;
    this.#curves.set(name, {});
    this.#line = this.#line.then(() => this.#measure(name));
  }

  async #measure(name) {
    await new Promise((resolve) => setTimeout(resolve, 400)); // after what this picture's own panels ask for
    try {
      this.#curves.set(name, await (await ask("api/response", { body: { concept: name } })).json());
    } catch {
      this.#curves.delete(name); // amounts stay in steps, and the next move asks again
      return;
    }
    this.dispatchEvent(new Event("change"));
  }
}
