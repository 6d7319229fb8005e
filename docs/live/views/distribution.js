// What the model thinks of the next token: the likeliest as bars; a click on one writes it instead.

import { make } from "./dom.js";
import { drawBars } from "./draw.js";
import { percent } from "./tensor.js";
import { readable } from "./tokens.js";
import { nucleus, softmax, topTokens } from "../search.js";

const SHOWN = 10;

/**
 * @param {import("../app.js").Page} page
 * @param {Float32Array} logits Of the place.
 * @param {number} number Which word it is, from 1.
 * @returns {HTMLElement}
 */
export function drawDistribution(page, logits, number) {
  const { t, run, state, go } = page;
  const { method, temperature, topP } = state;
  const warmth = method === "sample" ? temperature : 1;
  const chosen = run.words[number - 1]?.id;
  const probabilities = softmax(logits, warmth);
  const top = topTokens(logits, SHOWN).map(({ id }) => id);
  if (chosen !== undefined && !top.includes(chosen)) top.splice(SHOWN - 1, 1, chosen);
  const allowed = method === "sample" ? new Set(nucleus(logits, temperature, topP).map(({ id }) => id)) : null;
  const force = (id) => go({ forced: [...run.words.slice(0, number - 1).map((word) => word.id), id] });
  const rows = top.map((id) => {
    const name = readable(page.model.targetTokenizer.piece(id));
    const share = probabilities[id];
    const out = allowed !== null && !allowed.has(id);
    return {
      name,
      share,
      out,
      chosen: id === chosen,
      key: `bar-${id}`,
      press: () => force(id),
      label: t(id === chosen ? "next.chosen" : "next.force", { token: name, share: percent(share) }),
      note: out ? t("next.out") : "",
    };
  });
  const entropy = -probabilities.reduce((sum, share) => sum + (share > 0 ? share * Math.log2(share) : 0), 0);
  const forced = state.forced.length >= number && state.forced[number - 1] === chosen;
  return make(
    "section",
    { class: "view-next" },
    make("h3", {}, t("next.title", { number })),
    make(
      "p",
      { class: "note" },
      t("next.note", { size: logits.length.toLocaleString("en"), choices: roundly(2 ** entropy) }),
      " ",
      t(`next.${method}`, { temperature, topP }),
    ),
    drawBars(rows, t("next.title", { number })),
    forced &&
      make(
        "p",
        { class: "note" },
        t("next.forced"),
        " ",
        make(
          "button",
          { type: "button", class: "link", dataset: { key: "unforce" }, onclick: () => go({ forced: [] }) },
          t("next.unforce"),
        ),
      ),
  );
}

/** A number as one says it: one digit after the point where it is small. */
const roundly = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));
