// The steps in order, as chips: cut, embed, the layers of the encoder, the words of the decoder, the end.

import { make } from "./dom.js";
import { readable } from "./tokens.js";
import { splitStep } from "../state.js";

/**
 * @param {import("../app.js").Page} page
 * @param {string[]} steps
 * @param {string} current
 * @returns {HTMLElement[]}
 */
export function drawTimeline(page, steps, current) {
  const { t, run, go } = page;
  const groups = [
    ["start", []],
    ["enc", []],
    ["dec", []],
    ["end", []],
  ];
  for (const step of steps) {
    const [name] = splitStep(step);
    groups.find(([group]) => group === (name === "tokens" || name === "embed" ? "start" : name))[1].push(step);
  }
  const chip = (step) => {
    const [name, number] = splitStep(step);
    const word = name === "dec" ? run.words[number - 1] : null;
    const isForced = name === "dec" && run.state.forced[number - 1] === word?.id;
    const text = word ? readable(word.piece) : name === "enc" ? String(number) : t(`step.${name}`);
    return make(
      "button",
      {
        type: "button",
        class: `step step-${name}${isForced ? " forced" : ""}`,
        dataset: { key: `step-${step}`, step },
        onclick: () => go({ step, head: null }),
        "aria-current": step === current ? "step" : null,
        "aria-label": nameStep(page, step) + (isForced ? t("step.forced") : ""),
      },
      text,
    );
  };
  return groups
    .filter(([, all]) => all.length)
    .map(([group, all]) =>
      make(
        "div",
        { class: `steps-group steps-${group}` },
        ["enc", "dec"].includes(group) && make("span", { class: "steps-name" }, t(`steps.${group}`)),
        all.map(chip),
      ),
    );
}

/** Name a step in words. */
export function nameStep({ t, run }, step) {
  const [name, number] = splitStep(step);
  if (name === "dec") return t("step.dec", { number, word: run ? readable(run.words[number - 1]?.piece ?? "") : "" });
  return t(`step.${name}.long`, { number });
}
