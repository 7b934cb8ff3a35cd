// The page of the raters. Where answers go is the business of a `backend`:
//   about()                → {title, total}
//   resume()               → {total, trials, link?} of a rater who was here before, or null
//   join(nickname)         → the same of a new one
//   picture(name)          → its address
//   back                   words on how to stop and come back
//   send(trial, choice, seconds) → resolves once the answer is kept
//   finish()               → null, or {file, name} to be handed in
//   restart()              forgets the rater on this device;  leaving: words that ask whether it shall
const at = (id) => document.getElementById(id);
const CHOICES = [...document.querySelectorAll("[data-choice]")];
const SECONDS_PER_TRIAL = 8;
const SHORTEST_LOOK = 350; // milliseconds in which nobody has looked, and a key press is a slip

export async function run(backend) {
  const about = await persist(() => backend.about());
  document.title = about.title;
  for (const place of document.querySelectorAll("[data-title]")) place.textContent = about.title;
  for (const place of document.querySelectorAll("[data-total]")) place.textContent = about.total;
  for (const place of document.querySelectorAll("[data-minutes]"))
    place.textContent = Math.max(1, Math.round((about.total * SECONDS_PER_TRIAL) / 60));
  at("back").textContent = backend.back;
  for (const button of document.querySelectorAll("[data-restart]"))
    button.addEventListener("click", () => {
      if (!confirm(backend.leaving)) return;
      backend.restart();
      location.reload();
    });
  const known = await persist(() => backend.resume());
  if (known) return rate(backend, known);
  show("welcome");
  at("start").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = at("start").querySelector("button");
    if (button.disabled) return;
    button.disabled = true;
    try {
      const joined = await persist(() => backend.join(at("nickname").value));
      rate(backend, joined);
    } catch (error) {
      fail(error);
    }
  });
}

export function fail(error) {
  show("trouble");
  at("reason").textContent = error.message;
}

// What was in focus is gone: the heading of what came tells those who do not see it.
function show(name) {
  for (const part of ["welcome", "rating", "thanks", "trouble"]) at(part).hidden = part !== name;
  if (name !== "welcome") at(name).querySelector("h1, h2").focus();
}

// Tries again, ever more slowly, as long as only the connection is at fault.
async function persist(work) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
    try {
      const result = await work();
      at("notice").hidden = true;
      return result;
    } catch (error) {
      if (!error.again) throw error;
      at("notice").textContent = "No connection. Your answers so far are safe; trying again …";
      at("notice").hidden = false;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

async function rate(backend, { total, trials, link }) {
  const page = at("rating");
  const loaded = new Map();
  let current = 0, shown = 0, busy = true;

  const load = (k) => {
    if (k >= trials.length) return null;
    if (!loaded.has(k)) loaded.set(k, Promise.all([trials[k].before, trials[k].after].map(decode)));
    return loaded.get(k);
  };
  const decode = (name) => persist(async () => {
    const image = new Image();
    image.src = backend.picture(name);
    try {
      await image.decode();
    } catch {
      throw Object.assign(new Error("a picture cannot be shown"), { again: true });
    }
    return image.src;
  });

  const next = async () => {
    const done = total - trials.length + current;
    document.querySelector(".bar i").style.width = `${(100 * done) / total}%`;
    document.querySelector(".bar").setAttribute("aria-valuemax", total);
    document.querySelector(".bar").setAttribute("aria-valuenow", done);
    if (current >= trials.length) return finish(backend);
    at("count").textContent = `${done + 1} of ${total}`;
    page.classList.add("waiting");
    page.classList.remove("showing-after");
    const [before, after] = await load(current);
    at("before").src = before;
    at("after").src = after;
    await Promise.all([at("before").decode(), at("after").decode()]).catch(() => {});
    for (const button of CHOICES) button.classList.remove("chosen");
    page.classList.remove("waiting");
    page.dataset.trial = trials[current].id;
    shown = performance.now();
    busy = false;
    loaded.delete(current - 1);
    load(current + 1);
    load(current + 2);
  };

  const answer = async (button) => {
    if (busy || performance.now() - shown < SHORTEST_LOOK) return;
    busy = true;
    button.classList.add("chosen");
    const seconds = Math.round(performance.now() - shown) / 1000;
    const trial = trials[current].id;
    try {
      await persist(() => backend.send(trial, button.dataset.choice, seconds));
    } catch (error) {
      return fail(error);
    }
    current += 1;
    button.blur();
    next();
  };

  const flip = () => page.classList.toggle("showing-after");
  const view = () => {
    const single = page.classList.toggle("single");
    at("view").setAttribute("aria-pressed", single);
    at("view").firstChild.data = single ? "Show side by side " : "Show in one place ";
  };
  for (const button of CHOICES) button.addEventListener("click", () => answer(button));
  at("flip").addEventListener("click", flip);
  at("pictures").addEventListener("click", () => page.classList.contains("single") && flip());
  at("view").addEventListener("click", (event) => {
    view();
    if (event.detail > 0) at("view").blur(); // clicked: the space bar is for flipping again
  });
  document.addEventListener("keydown", (event) => {
    if (page.hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    // The key's place counts too: on some keyboards figures need Shift.
    const figure = /^(?:Digit|Numpad)([1-5])$/.exec(event.code)?.[1] ?? event.key;
    const choice = CHOICES[["1", "2", "3", "4", "5"].indexOf(figure)];
    if (choice) answer(choice);
    else if (event.key === "v" || event.key === "V") view();
    else if (event.key === " " && page.classList.contains("single") && !event.target.closest?.("button, a")) flip();
    else return;
    event.preventDefault();
  });

  if (link) {
    at("link").href = link;
    at("come-back").hidden = false;
  }
  show("rating");
  await next();
}

async function finish(backend) {
  const handIn = await backend.finish();
  if (handIn) {
    at("done").textContent = "One last step: save your answers and send them in.";
    at("hand-in").hidden = false;
    at("download").addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([handIn.file], { type: "application/json" }));
      link.download = handIn.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
  }
  show("thanks");
}
