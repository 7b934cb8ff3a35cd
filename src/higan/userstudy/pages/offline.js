// Answers stay in this browser until they are saved as a file: the page may lie on any host, or in a folder.
import { fail, run } from "./rating.js";

const study = JSON.parse(document.getElementById("study").textContent);
const place = `higan-user-study-${study.id}`;
let kept = null;

function read() {
  try {
    kept = JSON.parse(localStorage.getItem(place)) ?? null;
  } catch {
    kept = null; // private windows may refuse: the answers then live as long as the page
  }
  return kept;
}

function keeps() {
  try {
    localStorage.setItem(`${place}-tried`, "");
    localStorage.removeItem(`${place}-tried`);
    return true;
  } catch {
    return false;
  }
}

// Another tab may have answered meanwhile; of two answers to one trial the first counts.
function write() {
  try {
    const there = JSON.parse(localStorage.getItem(place));
    if (there?.rater === kept.rater) {
      const known = new Set(there.answers.map((answer) => answer.trial));
      kept.answers = [...there.answers, ...kept.answers.filter((answer) => !known.has(answer.trial))];
    }
  } catch {
    // as in read
  }
  try {
    localStorage.setItem(place, JSON.stringify(kept));
  } catch {
    // as in read
  }
}

function state() {
  const answered = new Set(kept.answers.map((answer) => answer.trial));
  const block = study.blocks[kept.block % study.blocks.length];
  const trials = block.map((k) => study.trials[k]).filter((trial) => !answered.has(trial.id));
  return { total: block.length, trials };
}

function chosenBlock() {
  const asked = new URLSearchParams(location.hash.slice(1)).get("block");
  if (/^\d{1,6}$/.test(asked ?? "")) return (Number(asked) - 1 + study.blocks.length) % study.blocks.length;
  return crypto.getRandomValues(new Uint32Array(1))[0] % study.blocks.length;
}

const backend = {
  about: async () => ({ title: study.title, total: study.blocks[0].length }),
  picture: (name) => `pictures/${name}.png`,
  back: keeps()
    ? "You can stop and come back in this browser."
    : "Please answer all of them at once: this browser forgets your answers when the page is closed.",
  leaving: "Have the answers been saved? They will be forgotten on this device.",
  resume: async () => (read() ? state() : null),
  join: async (nickname) => {
    const random = crypto.getRandomValues(new Uint8Array(16));
    const rater = [...random].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    kept = { rater, nickname, block: chosenBlock(), answers: [] };
    write();
    return state();
  },
  send: async (trial, choice, seconds) => {
    if (!kept.answers.some((answer) => answer.trial === trial)) kept.answers.push({ trial, choice, seconds });
    write();
  },
  finish: async () => ({
    name: `answers-${study.id.slice(0, 6)}-${kept.rater.slice(0, 6)}.json`,
    file: JSON.stringify({ format: study.format, study: study.id, ...kept }, null, 1),
  }),
  restart: () => {
    try {
      localStorage.removeItem(place);
    } catch {
      // nothing was kept
    }
  },
};

run(backend).catch(fail);
