// What the page asks the server for. One tab is one client: it takes turns with the others.

const client = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");

/** Samples stand in the line of the browser, not of the tab: the browser keeps what has the same address next time. */
const browser = (() => {
  try {
    const kept = localStorage.getItem("higan-studio-client") ?? client;
    localStorage.setItem("higan-studio-client", kept);
    return kept;
  } catch {
    return client; // private windows may refuse
  }
})();

const PATIENCE = { 0: 2000, 429: 300, 503: 300 }; // milliseconds before the same is asked again
const LONGEST = 60000; // milliseconds, after which the server cancels a job that nobody asks about

let study = null; // the version of the study that this page was made for

/** From here on the server is asked for this study, and refuses where it has been started with another. */
export const meant = (version) => (study = version);

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

export async function ask(path, { body, method = body === undefined ? "GET" : "POST", signal } = {}) {
  const raw = body instanceof Blob;
  const headers = { "X-Client": client };
  if (study) headers["X-Study"] = study;
  if (body !== undefined) headers["Content-Type"] = raw ? "application/octet-stream" : "application/json";
  const sent = body === undefined || raw ? body : JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: sent, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer; is it still running?");
  }
  if (!answer.ok) {
    const told = await answer.text();
    let words = told;
    try { words = JSON.parse(told).error; } catch { /* plain words already */ }
    throw new Refused(answer.status, words || `The server answered ${answer.status}.`);
  }
  return answer;
}

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

/** What is safe to ask twice: asked again while the server has too much to do or cannot be reached, for a minute. */
export async function insist(question) {
  const until = performance.now() + LONGEST;
  for (;;) {
    try {
      return await question();
    } catch (error) {
      // An answer that breaks off has no status.
      const time = PATIENCE[error.status ?? 0];
      if (!time || performance.now() > until) throw error;
      await pause(time);
    }
  }
}

export const thumbnail = (seed, version) => `api/samples/${seed}?v=${version}&client=${browser}`;

/**
 * One question on its way, the newest waiting behind it, everything between forgotten. Answers arrive in the order of
 * the questions, so that what is shown last is what was asked last.
 */
export class Pump {
  #next = null;
  #busy = false;

  constructor(send, show, fail) {
    Object.assign(this, { send, show, fail });
  }

  want(question) {
    this.#next = { question, asked: performance.now() };
    if (!this.#busy) this.#run();
  }

  get idle() {
    return !this.#busy;
  }

  async #run() {
    this.#busy = true;
    while (this.#next) {
      const { question, asked } = this.#next;
      this.#next = null;
      try {
        const answer = await this.send(question);
        if (answer !== null) await this.show(answer, question, asked);
      } catch (error) {
        if (error.status in PATIENCE && !this.#next) {
          // Asked too often, or nobody there: the newest question is kept and asked again.
          if (error.status === 0) this.fail(error, question);
          await pause(PATIENCE[error.status]);
          this.#next ??= { question, asked };
        } else if (!this.#next) this.fail(error, question);
      }
    }
    this.#busy = false;
  }
}
