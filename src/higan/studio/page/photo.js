// A photograph of one's own: sent, inverted with progress, then edited like a sample.

import { $, h, say } from "./dom.js";
import { ask } from "./api.js";
import { cancelling, follow, stopped } from "./jobs.js";

export function photographs(looks, study, fail) {
  $("photograph").addEventListener("change", async () => {
    const [file] = $("photograph").files;
    if (!file) return;
    $("photograph").value = "";
    if (file.size > study.largest_upload) {
      fail(new Error(`A photograph may have ${study.largest_upload >> 20} MiB; this one has ${(file.size / 2 ** 20).toFixed(1)}.`));
      return;
    }
    $("photograph").disabled = true;
    $("job").hidden = false;
    $("job-words").textContent = "Sending …";
    $("job-count").textContent = "";
    $("job-bar").removeAttribute("value");
    $("photo-result").replaceChildren();
    const signal = cancelling($("job-cancel"));
    try {
      const job = await (await ask("api/photographs", { body: new Blob([file]) })).json();
      const found = await follow(job, signal, ({ state, done, total }) => {
        say($("job-words"), signal.aborted ? "Stopping …" : state === "waiting" ? "Waiting for others …" : "Looking for its code …");
        $("job-count").textContent = total > 1 ? `step ${done} of ${total}` : "";
        if (total > 1) { $("job-bar").max = total; $("job-bar").value = done; }
      });
      if (found) show(found);
      else $("photo-result").textContent = stopped(signal);
    } catch (error) {
      fail(error);
    }
    $("job").hidden = true;
    $("photograph").disabled = false;
  });

  function show(found) {
    $("photo-result").replaceChildren(
      h("img", { src: found.photograph, alt: "Your photograph, cut and scaled" }),
      `Reproduced to ${found.error.toFixed(1)} grey levels (the mean code: ${found.start_error.toFixed(1)}). ` +
      (found.percentile >= 99.9 ? "Its code lies farther out than every sample's: trust edits only after a look." : `Nearer to the middle than ${(100 - found.percentile).toFixed(0)} % of samples.`),
    );
    looks.settle({ upload: found.upload, edits: looks.now.edits, mix: null });
  }
}
