// What is the same in each step: language, colours, the form at the top, the buttons of the steps.

import { make, replace } from "./dom.js";
import { about } from "../loading.js";

const find = (id) => document.getElementById(id);

/**
 * @param {import("../app.js").Page} page
 * @param {{step: string, steps: string[], language: string, models: string[], isDark: boolean, isPlaying: boolean,
 *     ask: (text: string) => void}} frame
 */
export function drawFrame(page, frame) {
  const { t } = page;
  const root = document.documentElement;
  root.lang = frame.language === "zh" ? "zh-CN" : "en";
  root.dataset.theme = frame.isDark ? "dark" : "light";
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]"))
    element.setAttribute("aria-label", t(element.dataset.label));
  find("theme").textContent = t(frame.isDark ? "theme.light" : "theme.dark");
  find("play").textContent = t(frame.isPlaying ? "pause" : "play");
  find("play").setAttribute("aria-pressed", String(frame.isPlaying));
  const place = frame.steps.indexOf(frame.step);
  find("back").disabled = place <= 0;
  find("forward").disabled = place < 0 || place >= frame.steps.length - 1;
  drawForm(page, frame);
}

function drawForm({ t, name, text }, { models, ask }) {
  const input = find("text");
  const known = about(name);
  if (document.activeElement !== input) input.value = text;
  input.lang = known.source;
  drawModels(models, name, t);
  const examples = known.examples.map((example) =>
    make(
      "button",
      {
        type: "button",
        class: "chip",
        lang: known.source,
        "aria-pressed": example === text,
        dataset: { key: `example-${example}` },
        onclick: () => ask(example),
      },
      example,
    ),
  );
  replace(find("examples"), make("span", {}, t("ask.examples")), ...examples);
}

/** Fill the list of models, unless it is right already: it may be open. */
function drawModels(models, name, t) {
  const select = find("model");
  const names = models.map((one) => t(`model.${one}`, { name: one }));
  if (select.dataset.names !== names.join()) {
    select.replaceChildren(...models.map((one, index) => make("option", { value: one }, names[index])));
    select.dataset.names = names.join();
  }
  select.value = name;
}
