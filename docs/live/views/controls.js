// What can be set: how the next token is chosen, and what is switched off.

import { make, replace } from "./dom.js";
import { readable } from "./tokens.js";
import { nameHead, readHead } from "../state.js";

const SLIDERS = {
  sample: [
    ["temperature", 0.1, 2, 0.1],
    ["topP", 0.05, 1, 0.05],
    ["seed", 1, 99, 1],
  ],
  beam: [
    ["beams", 1, 8, 1],
    ["penalty", -1, 3, 0.1],
  ],
};

/**
 * Draw the choice of a method, with its sliders.
 * @param {import("../app.js").Page} page
 * @returns {HTMLElement}
 */
export function drawDecoding({ t, state, go }) {
  const methods = ["greedy", "sample", "beam"].map((method) =>
    make(
      "label",
      { class: "radio" },
      make("input", {
        type: "radio",
        name: "method",
        value: method,
        checked: state.method === method,
        dataset: { key: `method-${method}` },
        onchange: () => go({ method }),
      }),
      t(`method.${method}`),
    ),
  );
  const sliders = (SLIDERS[state.method] ?? []).map(([name, min, max, step]) => {
    const shown = make("b", {}, String(state[name])); /* no <output>: the label would be its own */
    const input = make("input", {
      type: "range",
      min,
      max,
      step,
      value: state[name],
      dataset: { key: `slider-${name}` },
      "aria-describedby": `slider-${name}`,
      oninput: (event) => {
        shown.textContent = event.target.value;
      },
      onchange: (event) => go({ [name]: Number(event.target.value) }, { replace: true }),
    });
    return make(
      "label",
      { class: "slider" },
      make("span", {}, t(`slider.${name}`), shown),
      input,
      make("small", { id: `slider-${name}` }, t(`slider.${name}.note`)),
    );
  });
  return make(
    "fieldset",
    {},
    make("legend", {}, t("method.title")),
    make("div", { class: "radios" }, methods),
    make("p", { class: "note" }, t(`method.${state.method}.note`)),
    sliders,
  );
}

/**
 * Draw the switches of what a model can do without.
 * @param {import("../app.js").Page} page
 * @returns {HTMLElement | null}
 */
export function drawSwitches({ t, state, go, model }) {
  const names = ["causal", "scaling", "positions", "cross"].filter((name) => model.switches.includes(name));
  if (!names.length) return make("p", { class: "note" }, t("switch.none"));
  const { off } = state;
  const toggle = (name) => go({ off: off.includes(name) ? off.filter((one) => one !== name) : [...off, name] });
  const switches = names.map((name) =>
    make(
      "label",
      { class: "switch" },
      make("input", {
        type: "checkbox",
        role: "switch",
        checked: !off.includes(name),
        dataset: { key: `switch-${name}` },
        onchange: () => toggle(name),
      }),
      make("span", {}, t(`switch.${name}`), make("small", {}, t(`switch.${name}.note`))),
    ),
  );
  const all = { type: "button", class: "button", dataset: { key: "all-on" }, onclick: () => go({ off: [] }) };
  return make(
    "fieldset",
    {},
    make("legend", {}, t("switch.title")),
    make("p", { class: "note" }, t("switch.note")),
    switches,
    drawHeadsOff(t, off.map(readHead).filter(Boolean), toggle),
    off.length > 0 && make("button", all, t("switch.all-on")),
  );
}

/** The heads that are off, each with a button that brings it back. */
function drawHeadsOff(t, heads, toggle) {
  const buttons = heads.map((head) => {
    const key = nameHead(head);
    const name = t(`head.name.${head.kind}`, { layer: head.layer + 1, head: head.head + 1 });
    const label = t("switch.head-on", { name });
    const attributes = { type: "button", class: "chip", "aria-label": label, dataset: { key: `on-${key}` } };
    return make("button", { ...attributes, onclick: () => toggle(key) }, name, " ×");
  });
  return buttons.length > 0 && make("p", { class: "off-heads" }, t("switch.heads"), buttons);
}

/**
 * Write the target, and beside it what it was before anything was switched or forced.
 * @param {import("../app.js").Page} page
 * @param {HTMLElement} place
 */
export function writeOutput({ t, run, before, state, source, target }, place) {
  const changed = state.off.length > 0 || (run?.state ?? state).forced.length > 0; // a run drops ids that mean nothing
  const line = (name, of, other) =>
    make(
      "div",
      { class: "output-line" },
      make("dt", {}, t(name)),
      make("dd", { lang: target }, wordsOf(of, other, t)),
    );
  const isUnknown = source?.pieces.includes("<unk>");
  replace(
    place,
    isUnknown && make("p", { class: "note" }, t("output.unknown")),
    changed
      ? make("dl", { class: "outputs two" }, line("output.before", before, null), line("output.now", run, before))
      : make("dl", { class: "outputs" }, line("output.target", run, null)),
  );
}

function wordsOf(run, other, t) {
  if (!run) return "…";
  if (!run.words.length) return run.done ? t("end.empty") : "…";
  const hasBytes = run.words.some((word) => /^<0x/.test(word.piece)); // several of them are one character
  if (!other?.done || hasBytes) return run.text || t("end.empty");
  const kept = keptOf(
    other.words.map((word) => word.id),
    run.words.map((word) => word.id),
  );
  return run.words.map((word, index) => {
    const same = kept.has(index);
    const space = word.piece.startsWith("▁") && index > 0 ? " " : "";
    if (word.id === run.model.endId) return null;
    return [space, make(same ? "span" : "mark", {}, readable(word.piece))];
  });
}

/**
 * Find what two texts have in common, in order: the longest such list.
 * @param {number[]} before
 * @param {number[]} now
 * @returns {Set<number>} Places of the second text.
 */
function keptOf(before, now) {
  const lengths = Array.from({ length: before.length + 1 }, () => new Array(now.length + 1).fill(0));
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = now.length - 1; j >= 0; j--) {
      lengths[i][j] =
        before[i] === now[j] ? 1 + lengths[i + 1][j + 1] : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const kept = new Set();
  for (let i = 0, j = 0; i < before.length && j < now.length;) {
    if (before[i] === now[j]) {
      kept.add(j);
      i++;
      j++;
    } else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  return kept;
}
