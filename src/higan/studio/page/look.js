// What is shown: sample or photograph, layers lent by another sample, edits. Kept in the address, undone and redone.

const MOST_STEPS_BACK = 200;

export const plain = (look) => (look.upload ? { upload: look.upload } : { seed: look.seed });

/** As the server reads it; with `bare`, without anything done to it. */
export function sent(look, { bare = false } = {}) {
  if (bare) return plain(look);
  const edits = Object.entries(look.edits)
    .filter(([, edit]) => edit.strength && edit.layers.length)
    .map(([concept, { strength, layers }]) => ({ concept, strength, layers }));
  const mix = look.mix && look.mix.layers.length ? [{ seed: look.mix.seed, layers: look.mix.layers }] : [];
  return { ...plain(look), mix, edits };
}

export const touched = (look) => sent(look).edits.length + sent(look).mix.length > 0;

const ranges = (layers) => {
  const runs = [];
  for (const layer of [...layers].sort((a, b) => a - b)) {
    if (runs.length && layer === runs.at(-1)[1] + 1) runs.at(-1)[1] = layer;
    else runs.push([layer, layer]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`)).join(".");
};

function layersOf(text, count) {
  const found = new Set();
  for (const part of (text ?? "").split(".")) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (!match) return null;
    for (let layer = +match[1]; layer <= +(match[2] ?? match[1]); layer++) {
      if (layer >= count) return null;
      found.add(layer);
    }
  }
  return [...found].sort((a, b) => a - b);
}

/** `seed=7&mix=5~8-9&edit=wood~1.5~6-9`, to stand behind the #. */
export function toAddress(look) {
  const words = new URLSearchParams();
  if (look.upload) words.set("upload", look.upload);
  else words.set("seed", look.seed);
  for (const { seed, layers } of sent(look).mix) words.append("mix", `${seed}~${ranges(layers)}`);
  for (const { concept, strength, layers } of sent(look).edits) {
    words.append("edit", `${concept}~${+strength.toPrecision(6)}~${ranges(layers)}`);
  }
  return words.toString().replaceAll("%7E", "~");
}

/** Whether an address says anything of a look. */
export const isLook = (text) => {
  const words = new URLSearchParams(text.replace(/^#/, ""));
  return ["seed", "upload", "edit", "mix"].some((word) => words.has(word));
};

/** What an address says; parts that make no sense here are left out and counted. */
export function fromAddress(text, study, fallback) {
  const words = new URLSearchParams(text.replace(/^#/, ""));
  const look = { seed: fallback, edits: {}, mix: null };
  let odd = 0;
  const upload = words.get("upload");
  if (upload && /^[0-9a-f]{1,64}$/.test(upload)) look.upload = upload;
  const seed = words.get("seed");
  if (/^\d{1,10}$/.test(seed ?? "") && +seed < 2 ** 32) look.seed = +seed;
  else if (seed !== null) odd++;
  for (const part of words.getAll("edit")) {
    const [name, strength, where] = /^(.*)~([^~]*)~([^~]*)$/s.exec(part)?.slice(1) ?? []; // a name may hold a ~
    const layers = layersOf(where, study.generator.layers);
    const known = study.concepts.some((concept) => concept.name === name);
    if (known && layers && Number.isFinite(+strength) && Math.abs(+strength) <= 10000) {
      look.edits = { ...look.edits, [name]: { strength: +strength, layers } }; // a name may be __proto__
    } else odd++;
  }
  const [donor, where] = (words.get("mix") ?? "").split("~");
  const lent = layersOf(where, study.generator.layers);
  if (/^\d{1,10}$/.test(donor) && +donor < 2 ** 32 && lent) look.mix = { seed: +donor, layers: lent };
  else if (words.get("mix")) odd++;
  return { look, odd };
}

/** The look with its past and future. Listeners hear "change" (at once) and "settle" (when a move is over). */
export class Looks extends EventTarget {
  #past = [];
  #future = [];
  #settled;
  #last = { tag: "", time: 0 };

  constructor(look) {
    super();
    this.now = look;
    this.#settled = look;
  }

  /** Show something else while a move goes on. */
  move(look) {
    this.now = look;
    this.dispatchEvent(new Event("change"));
  }

  /** A move is over: one step to undo. Steps of one kind in quick succession are one. */
  settle(look = this.now, tag = "") {
    this.now = look;
    if (toAddress(look) !== toAddress(this.#settled)) {
      const quick = tag && tag === this.#last.tag && performance.now() - this.#last.time < 700;
      if (!quick) this.#past.push(this.#settled);
      this.#past.splice(0, this.#past.length - MOST_STEPS_BACK);
      this.#future = [];
      this.#last = { tag, time: performance.now() };
    }
    this.#arrive(look);
  }

  /** Show what an address says, as a step to undo. */
  get canUndo() { return this.#past.length > 0; }
  get canRedo() { return this.#future.length > 0; }

  undo() {
    if (!this.canUndo) return;
    this.#future.push(this.#settled);
    this.#last.tag = "";
    this.#arrive(this.#past.pop());
  }

  redo() {
    if (!this.canRedo) return;
    this.#past.push(this.#settled);
    this.#arrive(this.#future.pop());
  }

  #arrive(look) {
    this.now = this.#settled = look;
    this.dispatchEvent(new Event("change"));
    this.dispatchEvent(new Event("settle"));
  }
}
