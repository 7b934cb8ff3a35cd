// Answers go to the server that this page came from. The personal token stands behind # in the address.
import { fail, run } from "./rating.js";

let rater = new URLSearchParams(location.hash.slice(1)).get("rater");

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
  if (!response.ok) throw new Error(data.error);
  return data;
}

const backend = {
  about: () => call("/api/about"),
  picture: (name) => `/pictures/${name}.png`,
  back: "You can stop and come back: by the personal link on the next page, for the invitation begins anew.",
  send: (trial, choice, seconds) => call("/api/answers", { trial, choice, seconds }),
  resume: async () => (rater ? call("/api/trials") : null),
  join: async (nickname) => {
    if (!rater) {
      const joined = await call("/api/join", { nickname });
      rater = joined.rater;
      history.replaceState(null, "", `#rater=${rater}`);
    }
    return call("/api/trials");
  },
  finish: async () => null,
};

// A personal link pasted into this tab changes the address only: start again with it.
addEventListener("hashchange", () => location.reload());
run(backend).catch(fail);
