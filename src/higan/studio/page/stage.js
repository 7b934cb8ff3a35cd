// The picture: as it is, before, where it changed, which pixel belongs to what.

import { $, h, isolated, span } from "./dom.js";
import { ask, insist, Pump } from "./api.js";
import { plain, sent, touched } from "./look.js";
import { amount } from "./sliders.js";

const CHANGED = [255, 150, 40];
const keyOf = (look) => JSON.stringify(plain(look));

export class Stage {
  #before = { key: "", bitmap: null };
  #drawn = 0;

  constructor(looks, study, responses, fail) {
    Object.assign(this, { looks, study, responses, fail });
    this.overlay = "none";
    this.pictures = new Pump(
      async (question) => {
        const answer = await ask("api/picture", { body: { look: question.look, largest: this.#largest(), drag: true } });
        return answer.status === 204 ? null : createImageBitmap(await answer.blob());
      },
      (bitmap, question, asked) => this.#show(bitmap, question, asked),
      (error) => {
        $("frame").setAttribute("aria-busy", error.status === 0); // then it is asked again
        if (!this.shown) $("caption").textContent = error.message;
        fail(error);
      },
    );
    this.masks = new Pump(
      async (look) => {
        const answer = await ask("api/masks", { body: { look } });
        return { bitmap: await createImageBitmap(await answer.blob()), shares: JSON.parse(answer.headers.get("X-Classes")) };
      },
      (found) => this.#showMasks(found),
      (error) => {
        this.#clear();
        fail(error);
      },
    );
    looks.addEventListener("change", () => this.draw());
    responses.addEventListener("change", () => this.shown && this.#tell(this.shown));
    this.#wire();
  }

  draw() {
    const look = this.looks.now;
    $("frame").setAttribute("aria-busy", true);
    this.pictures.want({ look: sent(look), moved: performance.now() });
    if (this.overlay === "segments") this.masks.want(sent(look));
  }

  /** Words for the picture that is shown, which may lag behind what was asked for. */
  #tell(look) {
    this.shown = look;
    const edits = look.edits.map((e) => {
      const concept = this.study.concepts.find((c) => c.name === e.concept);
      return `${isolated(concept.label)} ${amount(concept, e, this.responses)}`;
    });
    const mix = look.mix.map(({ seed, layers }) => `layers ${span(layers)} of sample ${seed}`);
    const words = [look.upload ? "Photograph" : `Sample ${look.seed}`, ...mix, ...edits];
    $("caption").textContent = words.join(" · ");
    $("picture").setAttribute("aria-label", words.join(", "));
  }

  #largest() {
    const wide = Math.round($("frame").clientWidth * Math.min(devicePixelRatio, 2));
    return Math.max(64, Math.min(1024, this.study.generator.resolution, wide || 512));
  }

  async #show(bitmap, question) {
    paint($("picture"), bitmap);
    this.#tell(question.look);
    $("frame").setAttribute("aria-busy", JSON.stringify(question.look) !== JSON.stringify(sent(this.looks.now)));
    if (this.holding) this.hold(true);
    if (this.overlay === "difference") await this.#difference();
    const took = performance.now() - question.moved;
    performance.measure("higan: picture", { start: question.moved });
    $("latency").textContent = `${took.toFixed(0)} ms`;
    $("frame").dataset.drawn = ++this.#drawn;
    $("frame").dataset.shows = JSON.stringify(question.look);
  }

  // --- before -------------------------------------------------------------------------------------------------------

  /** What is shown, before all edits; null where by then another sample is shown, or none is yet. */
  async #fetchBefore() {
    if (!this.shown) return null;
    const key = keyOf(this.shown);
    if (this.#before.key !== key) {
      const body = { look: plain(this.shown), largest: this.#largest() };
      const answer = await insist(() => ask("api/picture", { body }));
      const bitmap = await createImageBitmap(await answer.blob());
      if (key !== keyOf(this.shown)) return null;
      this.#before = { key, bitmap };
    }
    return this.#before.bitmap;
  }

  async hold(down) {
    this.holding = down;
    if (down) {
      try {
        const bitmap = await this.#fetchBefore();
        if (!this.holding || !bitmap) return;
        paint($("before"), bitmap);
      } catch (error) {
        this.fail(error);
        return;
      }
    }
    $("before").hidden = !down;
    $("badge").hidden = !down;
    $("badge").textContent = touched(this.looks.now) ? "before" : "nothing is edited";
  }

  // --- overlays -----------------------------------------------------------------------------------------------------

  async show(overlay) {
    this.overlay = this.overlay === overlay ? "none" : overlay;
    $("difference").setAttribute("aria-pressed", this.overlay === "difference");
    $("segments").setAttribute("aria-pressed", this.overlay === "segments");
    $("overlay").hidden = this.overlay === "none";
    $("legend").hidden = this.overlay !== "segments";
    this.#clear();
    if (this.overlay === "difference") await this.#difference();
    else if (this.overlay === "segments") this.masks.want(sent(this.looks.now));
  }

  /** Nothing over the picture: what was there is of another overlay, or of another picture. */
  #clear() {
    const canvas = $("overlay");
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    $("legend").replaceChildren();
  }

  /** The picture in dark grey; over it one colour, the stronger the larger the mean difference of a pixel's channels. */
  async #difference() {
    let before;
    try {
      before = await this.#fetchBefore();
    } catch (error) {
      this.fail(error);
      return;
    }
    if (this.overlay !== "difference" || !before) return;
    const after = $("picture");
    const [a, b] = [pixels(before, after.width, after.height), pixels(after, after.width, after.height)];
    const canvas = $("overlay");
    canvas.width = after.width;
    canvas.height = after.height;
    const context = canvas.getContext("2d");
    const made = context.createImageData(canvas.width, canvas.height);
    for (let k = 0; k < made.data.length; k += 4) {
      const far = (Math.abs(a[k] - b[k]) + Math.abs(a[k + 1] - b[k + 1]) + Math.abs(a[k + 2] - b[k + 2])) / 3;
      const share = Math.min(1, far / 64);
      const grey = 40 + 0.35 * (0.3 * b[k] + 0.59 * b[k + 1] + 0.11 * b[k + 2]);
      for (let c = 0; c < 3; c++) made.data[k + c] = grey + share * (CHANGED[c] - grey);
      made.data[k + 3] = 255;
    }
    context.putImageData(made, 0, 0);
    canvas.style.opacity = 1;
  }

  #showMasks({ bitmap, shares }) {
    if (this.overlay !== "segments") return;
    paint($("overlay"), bitmap);
    $("overlay").style.opacity = 0.6;
    const known = Object.entries(shares).filter(([, share]) => share >= 0.005).slice(0, 10);
    $("legend").replaceChildren(
      ...known.map(([name, share]) => {
        const { label, colour } = this.study.classes[name];
        const mark = h("i");
        mark.style.background = `rgb(${colour.join(" ")})`;
        return h("li", {}, mark, `${label} ${(share * 100).toFixed(0)} %`);
      }),
    );
  }

  #wire() {
    const hold = (down) => (event) => {
      if (down && event.button > 0) return;
      this.hold(down);
    };
    for (const target of [$("hold"), $("frame")]) {
      target.addEventListener("pointerdown", hold(true));
      for (const end of ["pointerup", "pointercancel", "pointerleave"]) target.addEventListener(end, hold(false));
      target.addEventListener("contextmenu", (event) => event.preventDefault());
    }
    $("hold").addEventListener("keydown", (event) => {
      if (event.key === " " || event.key === "Enter") { event.preventDefault(); this.hold(true); }
    });
    $("hold").addEventListener("keyup", () => this.hold(false));
    $("hold").addEventListener("blur", () => this.hold(false));
    $("difference").addEventListener("click", () => this.show("difference"));
    $("segments").addEventListener("click", () => this.show("segments"));
    $("smooth").addEventListener("click", () => this.smooth());
    $("segments").hidden = Object.keys(this.study.classes).length === 0;
  }

  smooth() {
    const square = $("frame").classList.toggle("square");
    $("smooth").setAttribute("aria-pressed", !square);
  }
}

function paint(canvas, bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

function pixels(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}
