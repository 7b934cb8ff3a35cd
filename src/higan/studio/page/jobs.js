// Jobs of seconds: asked about until they are over, cancelled by a button.

import { ask } from "./api.js";

/** The result of a job, or null where it was cancelled; `progress(job)` hears how far it is. */
export async function follow(job, { cancel, progress = () => {} }) {
  const stop = () => ask(`api/jobs/${job.job}`, { method: "DELETE" }).catch(() => {});
  cancel.addEventListener("click", stop);
  try {
    for (;;) {
      progress(job);
      if (job.state === "done") return job.result;
      if (job.state === "cancelled") return null;
      if (job.state === "failed") throw new Error(job.error);
      await new Promise((resolve) => setTimeout(resolve, 200));
      job = await (await ask(`api/jobs/${job.job}`)).json();
    }
  } finally {
    cancel.removeEventListener("click", stop);
  }
}
