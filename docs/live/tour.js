// The guided tour: a text for each step, and light on the part that it speaks of.

import { make, replace } from "./views/dom.js";

const PLAIN = {
  model: "",
  text: "",
  method: "greedy",
  off: [],
  forced: [],
  head: null,
  open: "",
  layer: -1,
  query: -1,
  key: -1,
};
const HEAD = { kind: "enc", layer: 0, head: 0 };

/** What is lit, and the state of the page for it. The text is "tour.NAME". @type {[string, string, object][]} */
const STOPS = [
  ["ask", "#ask", { step: "tokens" }],
  ["timeline", "#timeline", { step: "tokens" }],
  ["words", ".view-tokens .cut-row:nth-of-type(3)", { step: "tokens" }],
  ["pieces", ".view-tokens .pieces", { step: "tokens" }],
  ["joins", ".joins", { step: "tokens" }],
  ["embedding", ".block-word", { step: "embed" }],
  ["position", ".block-position", { step: "embed" }],
  ["plan", ".plan", { step: "enc.1" }],
  ["arcs", ".arcs", { step: "enc.1" }],
  ["thumbs", ".thumbs", { step: "enc.1" }],
  ["scores", ".scores", { step: "enc.1", head: HEAD }],
  ["sum", ".sum", { step: "enc.1", head: HEAD }],
  ["norm", ".panel", { step: "enc.1", open: "self.norm" }],
  ["ffn", ".panel", { step: "enc.1", open: "ffn" }],
  ["stack", ".steps-enc", { step: "enc.5" }],
  ["read", ".read", { step: "dec.3" }],
  ["mask", ".head-top .block", { step: "dec.3", head: { kind: "self", layer: 0, head: 0 } }],
  ["cross", ".arcs", { step: "dec.3", open: "cross" }],
  ["next-token", ".view-next .bars", { step: "dec.3", open: "cross" }],
  ["beams", "#beams", { step: "dec.4", method: "beam" }],
  ["sampling", "#decoding", { step: "end", method: "sample" }],
  ["switches", "#output", { step: "end", off: ["positions"] }],
  ["all-heads", "#all-heads", { step: "end" }],
  ["done", "#ask", { step: "tokens" }],
];

/**
 * A state with what a step of the tour shows, where a link names the step alone.
 * @param {import("./state.js").State} state
 */
export function withStop(state) {
  const stop = STOPS[state.tour - 1];
  return stop && state.step === "tokens" ? { ...state, ...PLAIN, ...stop[2] } : state;
}

export class Tour {
  /** @param {any} app Its state, its `go`, its texts. */
  constructor(app) {
    this.app = app;
    this.place = document.getElementById("tour");
    this.seen = 0; // the step whose part has been scrolled to
    this.left = null; // what was shown before, which comes back at the end
    for (const event of ["scroll", "resize"]) addEventListener(event, () => this.put(), { passive: true });
  }

  get number() {
    return Math.min(this.app.state.tour, STOPS.length);
  }

  start() {
    this.app.stop();
    const kept = ["step", ...Object.keys(PLAIN)].map((name) => [name, this.app.state[name]]);
    if (!this.number) this.left = Object.fromEntries(kept);
    this.visit(1);
  }

  /** Go to a step of the tour; 0 ends it. @param {number} number */
  visit(number) {
    const stop = STOPS[number - 1];
    this.app.go(stop ? { ...PLAIN, ...stop[2], tour: number } : { ...this.left, tour: 0 });
    if (!stop) this.left = null;
    if (stop) this.place.querySelector(".tour-next")?.focus({ preventScroll: true });
    else document.getElementById("start-tour").focus();
  }

  /** Take a key, if it is the tour's. @param {KeyboardEvent} event */
  press(event) {
    if (!this.number || event.target.closest?.("input, select, canvas")) return false;
    const next = {
      ArrowLeft: this.number - 1 || 1,
      ArrowRight: (this.number % STOPS.length && this.number + 1) || this.number,
      Escape: 0,
    }[event.key];
    if (next === undefined) return false;
    event.preventDefault();
    if (next !== this.number) this.visit(next);
    return true;
  }

  /** Draw the text, and light its part as soon as that is there. */
  draw() {
    this.place.hidden = !this.number;
    if (!this.number) {
      this.seen = 0;
      this.place.dataset.drawn = "";
      this.place.replaceChildren();
      return;
    }
    const { app, number } = this;
    const t = app.t;
    const count = STOPS.length;
    const drawn = `${number} ${app.language}`;
    if (this.place.dataset.drawn === drawn) return this.put(); // not again: it would be read out again
    this.place.dataset.drawn = drawn;
    const button = (name, to, more = "") =>
      make(
        "button",
        {
          type: "button",
          class: `button ${more}`,
          dataset: { key: `tour-${name}` },
          onclick: () => this.visit(to),
        },
        t(`tour.${name}`),
      );
    replace(
      this.place,
      make("div", { class: "tour-light", "aria-hidden": "true" }),
      make(
        "div",
        { class: "tour-card", role: "dialog", "aria-label": t("tour.label", { number, count }) },
        make("p", { "aria-live": "polite" }, t(`tour.${STOPS[number - 1][0]}`)),
        make(
          "div",
          { class: "tour-buttons" },
          make("span", {}, t("tour.count", { number, count })),
          make("small", {}, t("tour.keys")),
          button("end", 0),
          number > 1 && button("back", number - 1),
          number < count && button("next", number + 1, "primary tour-next"),
        ),
      ),
    );
    this.put();
  }

  /** Put light and text where the part is. */
  put() {
    const { number, place } = this;
    const part = number && document.querySelector(STOPS[number - 1][1]);
    const [light, card] = place.children;
    if (!number || !card) return;
    light.hidden = !part || part.getBoundingClientRect().height === 0;
    if (light.hidden) return this.dock(card, null);
    if (this.seen !== number) {
      this.seen = number;
      part.scrollIntoView({ block: part.getBoundingClientRect().height > innerHeight / 2 ? "start" : "center" });
    }
    const box = part.getBoundingClientRect();
    const edge = 6;
    const rim = 4; // what the line around it needs at the border of a narrow window
    const left = Math.max(rim, box.left - edge);
    const right = Math.min(document.documentElement.clientWidth - rim, box.right + edge);
    for (const [name, value] of [
      ["left", left],
      ["top", box.top - edge],
      ["width", right - left],
      ["height", box.height + 2 * edge],
    ])
      light.style.setProperty(name, `${value}px`);
    this.dock(card, box);
  }

  /** Put the text below its part, above it, beside it, or at the lower edge of the window. */
  dock(card, box) {
    const { width, height } = card.getBoundingClientRect();
    const gap = 18;
    const most = { left: innerWidth - width - gap, top: innerHeight - height - gap };
    const clamp = (value, high) => Math.max(gap, Math.min(value, high));
    let spot = { left: (innerWidth - width) / 2, top: most.top };
    if (box) {
      const left = clamp(box.left, most.left);
      const beside = clamp(box.top, most.top);
      const spots = [
        { left, top: box.bottom + gap, fits: box.bottom + gap <= most.top && box.bottom > 0 },
        { left, top: box.top - height - gap, fits: box.top - height - gap >= gap },
        { left: box.right + gap, top: beside, fits: box.right + gap <= most.left },
        { left: box.left - width - gap, top: beside, fits: box.left - width - gap >= gap },
      ];
      spot = spots.find((one) => one.fits) ?? spot;
    }
    Object.assign(card.style, { left: `${clamp(spot.left, most.left)}px`, top: `${spot.top}px` });
  }
}
