// Under the picture: what changed, strips, mixing, transitions. A panel asks only while it is open.

import { $, h, isolated, roving, say as tell, signed, span } from "./dom.js";
import { ask, Pump, thumbnail } from "./api.js";
import { sent, touched } from "./look.js";
import { layerStrip } from "./layers.js";
import { cancelling, follow, stopped } from "./jobs.js";

/** The server writes for a font that has neither a minus sign nor σ. */
const measured = (caption) => caption.replace(/^(.+) ([+-]\d+\.\d) sd$/gm, (_, name, value) => `${isolated(name)} ${signed(+value, 1)} σ`);

const NAMES = ["changes", "sweep", "grid", "joint", "mix", "transition"];

export class Panels {
  constructor(looks, study, gallery, sliders, fail) {
    Object.assign(this, { looks, study, gallery, sliders, fail });
    this.open = "changes";
    this.changes = new Pump(
      async (look) => (await ask("api/changes", { body: { look } })).json(),
      (found, look) => this.#showChanges(found, look),
      (error) => this.open === "changes" && this.#fill("changes", h("p", { class: "soft" }, error.message)),
    );
    this.strips = new Pump(
      async (question) => ({ ...(await (await ask("api/strip", { body: question })).json()), question }),
      (found) => this.#showStrip(found),
      (error, question) => question === this.wanted && this.#fill(question.kind, h("p", { class: "soft" }, error.message)),
    );
    $("tab-changes").hidden = !study.scored;
    $("tab-transition").hidden = study.categories.length < 2;
    const tabs = document.querySelector("[role=tablist]");
    tabs.addEventListener("click", (event) => event.target.closest("[role=tab]") && this.show(event.target.closest("[role=tab]").id.slice(4)));
    tabs.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && this.show(event.target.id.slice(4)));
    roving(tabs, "[role=tab]:not([hidden])");
    this.#mixing();
    this.#transition();
    looks.addEventListener("settle", () => this.refresh());
    this.show(study.scored ? "changes" : "sweep");
  }

  show(name) {
    this.open = name;
    for (const other of NAMES) {
      $(`panel-${other}`).hidden = other !== name;
      $(`tab-${other}`).setAttribute("aria-selected", other === name);
      $(`tab-${other}`).tabIndex = other === name ? 0 : -1;
    }
    this.gallery.lending(name === "mix" ? (seed) => this.#lend(seed) : null, "Who lends its layers?");
    this.refresh();
  }

  refresh() {
    const look = this.looks.now;
    const body = sent(look);
    const say = (words) => {
      this.wanted = null;
      this.#fill(this.open, h("p", { class: "soft" }, words));
    };
    const strip = (question) => {
      this.wanted = question;
      this.#wait("Drawing …");
      this.strips.want(question);
    };
    if (this.open === "changes") {
      if (touched(look)) {
        this.#wait("Measuring …");
        this.changes.want(body);
      } else say("Move a slider: here you will see how far every score really moved in this picture, not only the one you asked for.");
    } else if (this.open === "sweep") {
      if (body.edits.length) strip({ look: body, kind: "sweep" });
      else say("Move a slider: here its edit goes both ways, step by step.");
    } else if (this.open === "joint") {
      if (body.edits.length > 1) strip({ look: body, kind: "joint" });
      else say("Move two sliders or more: here you will see each edit alone, then all together.");
    } else if (this.open === "grid") {
      const concept = this.sliders.focused ?? body.edits.at(-1)?.concept ?? this.study.concepts[0]?.name;
      const edits = body.edits.filter((e) => e.concept === concept);
      if (concept) strip({ look: { ...body, edits: edits.length ? edits : [this.#probe(concept)] }, kind: "grid", concept });
      else say("There is no concept to show.");
    } else if (this.open === "mix") this.#updateMixing();
  }

  /** What a grid shows of a concept that is not moved: two thirds of its slider. */
  #probe(name) {
    const { limit, layers } = this.study.concepts.find((concept) => concept.name === name);
    return { concept: name, strength: (2 / 3) * limit, layers };
  }

  #label(name) {
    return this.study.concepts.find((concept) => concept.name === name)?.label ?? name.replaceAll("_", " ");
  }

  #fill(name, ...content) {
    $(`panel-${name}`).replaceChildren(...content);
    $(`panel-${name}`).setAttribute("aria-busy", false);
  }

  /** What is there is of another picture, and fades; where nothing is, words say that it is being made. */
  #wait(words) {
    const panel = $(`panel-${this.open}`);
    if (!panel.querySelector(".bars, .pictures")) panel.replaceChildren(h("p", { class: "soft" }, words));
    panel.setAttribute("aria-busy", true);
  }

  // --- what changed -------------------------------------------------------------------------------------------------

  #showChanges(found, look) {
    if (this.open !== "changes" || JSON.stringify(look) !== JSON.stringify(sent(this.looks.now))) return;
    const asked = new Set(sent(this.looks.now).edits.map((edit) => edit.concept));
    const rows = Object.entries(found).sort((a, b) => asked.has(b[0]) - asked.has(a[0]) || Math.abs(b[1]) - Math.abs(a[1]));
    const shown = rows.filter(([name, value], k) => asked.has(name) || (k < 14 && Math.abs(value) >= 0.1));
    const most = Math.max(1, ...rows.map(([, value]) => Math.abs(value)));
    const bars = shown.flatMap(([name, value]) => {
      const fill = h("span", { class: "fill" });
      fill.style.left = `${50 + Math.min(0, (50 * value) / most)}%`;
      fill.style.width = `${Math.abs((50 * value) / most)}%`;
      const level = `level-${this.study.all[name]}`;
      return [
        h("span", { class: asked.has(name) ? "asked" : "" }, this.#label(name)),
        h("span", { class: `track ${level}` }, fill),
        h("span", { class: "value" }, `${signed(value, 2)} σ`),
      ];
    });
    this.#fill("changes",
      h("p", { class: "soft small" }, "Measured by the scorer on this picture, in standard deviations of each score; what you asked for is bold."),
      h("div", { class: "bars" }, ...bars),
    );
  }

  // --- strips -------------------------------------------------------------------------------------------------------

  #showStrip({ kind, pictures, question }) {
    if (question !== this.wanted) return;
    const words = {
      sweep: () => "All edits together: at −1 the opposite of what you asked, at 0 the sample, at +1 what you see above.",
      joint: () => "The sample, each edit alone, then all together.",
      grid: () => `${this.#label(question.concept)}, the same step, λ = ${signed(question.look.edits[0].strength, 1)}, at all layers, at every single layer and at every stage (Fig. 3c of the paper).`,
    }[kind]();
    this.#fill(kind,
      h("p", { class: "soft small" }, words),
      h("div", { class: "pictures" }, ...pictures.map(({ uri, caption }) => h("figure", {}, h("img", { src: uri, alt: measured(caption).split("\n")[0] }), h("figcaption", {}, measured(caption))))),
    );
  }

  // --- mixing -------------------------------------------------------------------------------------------------------

  #mixing() {
    this.lent = layerStrip(this.study, {
      label: "Layers that come from the other sample",
      change: (layers, over) => this.#mix({ seed: this.looks.now.mix?.seed ?? this.donor, layers }, over),
    });
    const stages = Object.entries(this.study.stages).map(([name, layers]) =>
      h("button", { onclick: () => this.#mix({ seed: this.looks.now.mix?.seed ?? this.donor, layers }, true) }, `${name} ${span(layers)}`));
    this.donor = 1;
    this.donorPicture = h("img", { alt: "", width: 64, height: 64 });
    this.donorWords = h("span", {});
    $("panel-mix").replaceChildren(
      h("p", { class: "soft small" }, "Choose a sample in the gallery: it lends the layers below. The last ones carry the palette."),
      h("div", { class: "row photo" }, this.donorPicture, this.donorWords),
      h("div", { class: "row" }, ...stages, h("button", { onclick: () => this.looks.settle({ ...this.looks.now, mix: null }) }, "Give back")),
      h("div", { class: "level-object" }, this.lent.element),
    );
  }

  #mix(mix, over) {
    const look = { ...this.looks.now, mix };
    if (over) this.looks.settle(look, "mix");
    else { this.looks.move(look); this.lent.set(mix.layers); }
  }

  #lend(seed) {
    const layers = this.looks.now.mix?.layers.length ? this.looks.now.mix.layers : this.study.palette;
    this.#mix({ seed, layers }, true);
  }

  #updateMixing() {
    const mix = this.looks.now.mix;
    const seed = mix?.seed ?? this.donor;
    this.donor = seed;
    this.donorPicture.src = thumbnail(seed, this.study.version);
    this.donorPicture.alt = `Sample ${seed}`;
    this.donorWords.textContent = mix?.layers.length ? `Sample ${seed} lends layers ${span(mix.layers)}` : `Sample ${seed} lends nothing yet`;
    this.lent.set(mix?.layers ?? []);
  }

  // --- transition ---------------------------------------------------------------------------------------------------

  #transition() {
    const { categories } = this.study;
    if (categories.length < 2) return;
    const choose = (id, label, at) => [
      h("label", { for: id }, label),
      h("select", { id }, ...categories.map(({ name, label, verified }, k) => h("option", { value: name, selected: k === at }, verified ? label : `${label} (not verified)`))),
    ];
    const words = h("p", { class: "soft", role: "status" });
    const count = h("p", { class: "soft" }); // not announced at every step
    const cancel = h("button", { hidden: true }, "Cancel");
    this.drawing = h("div", {});
    const start = h("button", {}, "Turn them");
    start.addEventListener("click", async () => {
      const chosen = [$("from").value, $("to").value];
      if (chosen[0] === chosen[1]) { words.textContent = "Choose two different ones."; return; }
      start.disabled = true;
      cancel.hidden = false;
      const signal = cancelling(cancel);
      words.textContent = "Turning 24 samples and counting what became of every pixel …";
      try {
        const job = await (await ask("api/transition", { body: { categories: chosen, num: 24 } })).json();
        const result = await follow(job, signal, ({ done, total }) => {
          if (signal.aborted) tell(words, "Stopping …");
          count.textContent = total ? `${Math.floor((100 * done) / total)} %` : "";
        });
        words.textContent = result ? "" : stopped(signal);
        if (result) this.#showTransition(result);
      } catch (error) {
        words.textContent = error.message;
      }
      count.textContent = "";
      start.disabled = false;
      cancel.hidden = true;
    });
    $("panel-transition").replaceChildren(
      h("p", { class: "soft small" }, "Fresh samples that the scorer is surest of, turned into another category at the layers that do it while they move the code least; the bands tell what became of their objects (Fig. 5)."),
      h("div", { class: "row" }, ...choose("from", "From", 0), ...choose("to", "to", 1), start, cancel),
      words, count, this.drawing,
    );
  }

  #showTransition({ drawing, rows, legs, num }) {
    const template = h("template");
    template.innerHTML = drawing; // drawn by the server, with every name in it escaped
    const journeys = rows.map(({ seed, pictures, masks }) => {
      const stations = h("div", { class: "stations" },
        h("div", {}, ...pictures.map((uri, k) => h("img", { src: uri, alt: `Sample ${seed}, station ${k}` }))),
        h("div", {}, ...masks.map((uri, k) => h("img", { src: uri, class: "mask", alt: `Its object classes, station ${k}` }))));
      stations.style.setProperty("--n", pictures.length);
      return stations;
    });
    const percent = (share) => `${(100 * share).toFixed(0)} %`;
    const tables = legs.map((leg) => h("table", {},
      h("thead", {}, h("tr", {}, h("th", {}, `${leg.from} → ${leg.to}, layers ${span(leg.layers)}`), h("th", {}, "kept"), h("th", {}, "95 %"))),
      h("tbody", {}, ...leg.kept.slice(0, 12).map((row) => h("tr", {}, h("th", {}, row.name), h("td", {}, percent(row.share)), h("td", { class: "soft" }, `${percent(row.low)} – ${percent(row.high)}`))))));
    this.drawing.replaceChildren(
      h("p", { class: "soft small" }, `Over ${num} samples.`), template.content, h("div", { class: "journeys" }, ...journeys), ...tables,
    );
  }
}
