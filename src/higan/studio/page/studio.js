// The page: everything is made once, then follows one look (look.js).

import { $, toast } from "./dom.js";
import { ask, insist, meant } from "./api.js";
import { fromAddress, isLook, Looks, sent, toAddress } from "./look.js";
import { Gallery } from "./gallery.js";
import { Panels } from "./panels.js";
import { photographs } from "./photo.js";
import { Responses } from "./responses.js";
import { Sliders } from "./sliders.js";
import { Stage } from "./stage.js";

const FIRST = 15;
const REST = 250; // milliseconds between changes of the address: browsers refuse ten and more a second, as under a held key
const ODD = "Parts of this link make no sense with this study and were left out.";
const fail = (error) => toast(error.message);
const addressOf = (look) => `#${toAddress(look)}`;

async function begin() {
  const study = await (await ask("api/study")).json();
  meant(study.version);
  const { name, layers, resolution } = study.generator;
  $("about").textContent = `${name} · ${layers} layers · ${resolution} × ${resolution} · ${study.concepts.length} of ${study.tried} concepts verified`;
  $("report").hidden = !study.report;
  const { look, odd } = fromAddress(location.hash, study, FIRST);
  if (odd) toast(ODD);
  const looks = new Looks(look);
  const responses = new Responses(looks, study);
  const stage = new Stage(looks, study, responses, fail);
  const gallery = new Gallery(looks, study);
  const sliders = new Sliders(looks, study, responses);
  new Panels(looks, study, gallery, sliders, fail);
  photographs(looks, study, fail);
  header(looks);
  keyboard(looks, stage, gallery);
  let [written, resting] = [-REST, null];
  const write = () => {
    written = performance.now();
    history.replaceState(null, "", addressOf(looks.now));
  };
  looks.addEventListener("settle", () => {
    clearTimeout(resting);
    resting = setTimeout(write, Math.max(0, written + REST - performance.now()));
    $("undo").disabled = !looks.canUndo;
    $("redo").disabled = !looks.canRedo;
  });
  addEventListener("hashchange", () => {
    if (!isLook(location.hash)) return;
    const said = fromAddress(location.hash, study, looks.now.seed ?? FIRST);
    if (said.odd) toast(ODD);
    looks.settle(said.look);
  });
  stage.draw();
  document.documentElement.dataset.ready = "";
}

function header(looks) {
  // As a plain link it would put another address in the place of the look's.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("sliders").focus();
  });
  $("undo").addEventListener("click", () => looks.undo());
  $("redo").addEventListener("click", () => looks.redo());
  $("reset").addEventListener("click", () => looks.settle({ ...looks.now, edits: {}, mix: null }));
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("share").addEventListener("click", async () => {
    history.replaceState(null, "", addressOf(looks.now));
    try {
      await navigator.clipboard.writeText(new URL(addressOf(looks.now), location.href).href);
      toast(looks.now.upload ? "Link copied; it works while this server keeps the photograph." : "Link copied.");
    } catch {
      toast("The link is in the address bar.");
    }
  });
  $("download").addEventListener("click", async (event) => {
    const kind = event.target.closest("[data-kind]")?.dataset.kind;
    if (!kind) return;
    $("download").open = false;
    $("download").querySelector("summary").focus();
    try {
      const body = { look: sent(looks.now), kind };
      const answer = await insist(() => ask("api/download", { body }));
      const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "higan";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await answer.blob());
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) {
      fail(error);
    }
  });
  addEventListener("pointerdown", (event) => $("download").contains(event.target) || ($("download").open = false));
}

function keyboard(looks, stage, gallery) {
  const typing = (target) => target.matches("input:not([type=range]), select, textarea") || $("help").open;
  addEventListener("keydown", (event) => {
    if (typing(event.target)) return;
    const key = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && !event.altKey) {
      if (key === "z" || key === "y") {
        event.preventDefault();
        if (key === "y" || event.shiftKey) looks.redo();
        else looks.undo();
      }
      return;
    }
    if (event.altKey) return;
    const does = {
      b: () => event.repeat || stage.hold(true),
      d: () => stage.show("difference"),
      s: () => $("segments").hidden || stage.show("segments"),
      p: () => stage.smooth(),
      r: () => $("reset").click(),
      n: () => gallery.step(event.shiftKey ? -1 : 1),
      "/": () => $("sought").focus(),
      "?": () => $("help").showModal(),
      escape: () => ($("download").open = false),
    }[key];
    if (does) { if (key !== "escape") event.preventDefault(); does(); }
  });
  addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && stage.hold(false));
  addEventListener("blur", () => stage.hold(false));
}

begin().catch((error) => {
  $("about").textContent = error.message;
  fail(error);
});
