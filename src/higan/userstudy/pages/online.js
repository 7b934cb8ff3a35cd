// Answers go to the server that this page came from. The personal token stands behind # in the address, and is kept in
// this browser, so that the invitation goes on where its rater stopped.
import { fail, run } from "./rating.js";

let rater = new URLSearchParams(location.hash.slice(1)).get("rater");
let place = null; // where the token is kept: several studies may come from one address

function kept() {
  try {
    return localStorage.getItem(place);
  } catch {
    return null; // private windows may refuse: the personal link remains
  }
}

function keep() {
  try {
    if (rater) localStorage.setItem(place, rater);
    else localStorage.removeItem(place);
  } catch {
    // as in kept
  }
}

async function call(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: { ...(rater && { "x-rater": rater }), ...(body && { "content-type": "application/json" }) },
      body: body && JSON.stringify(body),
    });
  } catch {
    throw Object.assign(new Error("no connection"), { again: true });
  }
  if (response.status >= 500) throw Object.assign(new Error("the server is busy"), { again: true });
  const isJson = (response.headers.get("content-type") ?? "").startsWith("application/json");
  const data = isJson ? await response.json() : { error: await response.text() };
  if (!response.ok) throw Object.assign(new Error(data.error), { status: response.status });
  return data;
}

const backend = {
  about: async () => {
    const about = await call("/api/about");
    place = `higan-user-study-${about.study}-rater`;
    return about;
  },
  picture: (name) => `/pictures/${name}.png`,
  back: "You can stop and come back: in this browser, or anywhere by the personal link on the next page.",
  leaving: "Start again as somebody else? What was answered so far is kept; only its personal link leads back to it.",
  send: (trial, choice, seconds) => call("/api/answers", { trial, choice, seconds }),
  resume: async () => {
    const linked = rater !== null;
    rater ??= kept();
    if (!rater) return null;
    try {
      const known = await call("/api/trials");
      keep();
      return known;
    } catch (error) {
      // Of a rater who was removed nothing is left to go on with; a link that is wrong is told.
      if (linked || error.status !== 404) throw error;
      rater = null;
      keep();
      return null;
    }
  },
  join: async (nickname) => {
    if (!rater) {
      const joined = await call("/api/join", { nickname });
      rater = joined.rater;
      keep();
      history.replaceState(null, "", `#rater=${rater}`);
    }
    return call("/api/trials");
  },
  finish: async () => null,
  restart: () => {
    rater = null;
    keep();
    history.replaceState(null, "", location.pathname + location.search);
  },
};

// A personal link pasted into this tab changes the address only: start again with it.
addEventListener("hashchange", () => location.reload());
run(backend).catch(fail);
