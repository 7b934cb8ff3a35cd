// Jobs of seconds: asked about until they are over, cancelled by a button.

import { ask, insist } from "./api.js";

/** A button that cancels once: its signal is heard from the first click on, whatever is under way then. */
export function cancelling(button) {
  const stop = new AbortController();
  button.onclick = () => stop.abort();
  return stop.signal;
}

/** Why there is no result. */
export const stopped = (signal) =>
  signal.aborted ? "Cancelled." : "Cancelled, since this page had not asked for a minute, as when it sleeps: start it again.";

/** The result of a job, or null where it was cancelled; `progress(job)` hears how far it is. */
export async function follow(job, signal, progress = () => {}) {
  const path = `api/jobs/${job.job}`;
  let told = false;
  for (;;) {
    if (signal.aborted && !told) {
      told = true;
      await insist(() => ask(path, { method: "DELETE" }));
    }
    progress(job);
    if (job.state === "done") return job.result;
    if (job.state === "cancelled") return null;
    if (job.state === "failed") throw new Error(job.error);
    await new Promise((resolve) => setTimeout(resolve, 200));
    job = await insist(async () => (await ask(path)).json());
  }
}
