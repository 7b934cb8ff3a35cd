// Samples by number, more of them as one scrolls; in the mixing panel a click chooses who lends layers.

import { $, h, roving } from "./dom.js";
import { thumbnail } from "./api.js";

const AT_ONCE = 30;
const UNDER_WAY = 2; // thumbnails: browsers keep six connections to a server, and the picture must not wait for one
const AGAIN = 2000; // milliseconds
const MOST = 2 ** 32 - 1;

export class Gallery {
  #first = 0;
  #next = 0;
  #shown = null;
  #wanted = new Set(); // thumbs in sight that have no picture yet
  #loading = 0;

  constructor(looks, study) {
    this.looks = looks;
    this.study = study;
    this.lend = null;
    this.sentinel = h("div", { class: "sentinel", "aria-hidden": "true" });
    this.thumbs = $("thumbs");
    this.thumbs.append(this.sentinel);
    this.watch = new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && this.more(), {
      root: this.thumbs, rootMargin: "300px",
    });
    this.sight = new IntersectionObserver((seen) => {
      for (const { target, isIntersecting } of seen) this.#wanted[isIntersecting ? "add" : "delete"](target);
      this.#load();
    }, { root: this.thumbs, rootMargin: "100px" });
    const columns = () => getComputedStyle(this.thumbs).gridTemplateColumns.split(" ").length || 1;
    roving(this.thumbs, ".thumb", { columns });
    this.thumbs.addEventListener("click", (event) => {
      const chosen = event.target.closest(".thumb");
      if (chosen) this.choose(+chosen.dataset.seed);
    });
    $("goto").addEventListener("submit", (event) => {
      event.preventDefault();
      const seed = Number($("seed").value);
      if (!Number.isInteger(seed) || seed < 0 || seed > MOST || $("seed").value.trim() === "") {
        $("seed").setCustomValidity(`A whole number of 0 to ${MOST}`);
        $("seed").reportValidity();
        return;
      }
      this.#settle(seed);
    });
    $("seed").addEventListener("input", () => $("seed").setCustomValidity(""));
    looks.addEventListener("settle", () => this.mark());
    this.more();
    this.mark();
  }

  /** As many samples again. */
  more() {
    const fresh = [];
    for (let k = 0; k < AT_ONCE && this.#next <= MOST; k++, this.#next++) fresh.push(this.#thumb(this.#next));
    this.sentinel.before(...fresh);
    this.mark();
    // Only changes are told, and on a tall window the end may be in view before and after.
    this.watch.unobserve(this.sentinel);
    if (fresh.length) this.watch.observe(this.sentinel);
  }

  #thumb(seed) {
    const picture = h("img", { alt: "", decoding: "async", width: 64, height: 64 });
    const thumb = h("button", {
      class: "thumb", role: "option", "data-seed": seed, "aria-label": `Sample ${seed}`, "aria-selected": "false", tabindex: -1,
    }, picture);
    this.sight.observe(thumb);
    return thumb;
  }

  /** A few thumbnails under way at a time, of those in sight. */
  #load() {
    for (const thumb of this.#wanted) {
      if (this.#loading >= UNDER_WAY) return;
      this.#wanted.delete(thumb);
      this.sight.unobserve(thumb);
      this.#loading++;
      const picture = thumb.firstChild;
      const over = () => {
        this.#loading--;
        this.#load();
      };
      picture.onload = over;
      picture.onerror = () => {
        // A server that has too much to do refuses, and one that is gone may come back.
        picture.removeAttribute("src");
        setTimeout(() => {
          this.sight.observe(thumb);
          over();
        }, AGAIN);
      };
      picture.src = thumbnail(thumb.dataset.seed, this.study.version);
    }
  }

  choose(seed) {
    if (this.lend) {
      this.lend(seed);
      return;
    }
    this.#settle(seed);
  }

  step(by) {
    const seed = this.looks.now.seed ?? 0;
    this.#settle(Math.min(MOST, Math.max(0, seed + by)));
  }

  /** Another sample keeps the edits: that is how one sees whether they hold in general. */
  #settle(seed) {
    const { edits, mix } = this.looks.now;
    this.looks.settle({ seed, edits, mix });
  }

  mark() {
    const { seed, upload } = this.looks.now;
    let shown = null;
    for (const thumb of this.thumbs.querySelectorAll(".thumb")) {
      const here = !upload && +thumb.dataset.seed === seed;
      thumb.setAttribute("aria-selected", here);
      thumb.tabIndex = here ? 0 : -1;
      if (here) shown = thumb;
    }
    if (!shown) (this.thumbs.querySelector(".thumb") ?? {}).tabIndex = 0;
    if (shown && shown !== this.#shown) this.#reveal(shown);
    this.#shown = shown;
  }

  /** Scrolls the gallery as little as shows a sample whole, and nothing around the gallery. */
  #reveal(thumb) {
    const [inner, outer] = [thumb.getBoundingClientRect(), this.thumbs.getBoundingClientRect()];
    this.thumbs.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
    this.thumbs.scrollLeft += Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right);
  }

  /** While somebody looks for a sample that lends its layers, clicks go to `lend`. */
  lending(lend, words) {
    this.lend = lend;
    document.body.classList.toggle("lending", Boolean(lend));
    $("gallery-title").textContent = lend ? words : "Samples";
  }
}
