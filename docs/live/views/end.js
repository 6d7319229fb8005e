// The end: the whole target, how sure the model was of each token, and which word comes from where.

import { isOff, nameText } from "./attention.js";
import { make } from "./dom.js";
import { drawBars, drawLegend, drawMatrix } from "./draw.js";
import { at, mean, part, percent } from "./tensor.js";
import { readable } from "./tokens.js";

/**
 * @param {import("../app.js").Page} page
 * @param {Object<string, any> | null} trace Of the last word: the rows of all words are in it.
 * @returns {HTMLElement}
 */
export function drawEnd(page, trace) {
  const { t, run, source, go, state } = page;
  const words = run.words;
  const names = words.map((word) => readable(word.piece));
  const chance = words.reduce((product, word) => product * word.probability, 1);
  const ended = words.at(-1)?.id === run.model.endId;
  const looks = trace?.["cross.weights"];
  const lead = looks ? nameText("end.lead", "cross", state) : "end.lead.plain"; // before the trace is there, or never
  return make(
    "div",
    { class: "view view-end" },
    make("p", { class: "lead" }, t(lead, { count: words.length }), " ", t(ended ? "end.ended" : "end.cut")),
    make("blockquote", { class: "target", lang: page.target }, run.text || t("end.empty")),
    make(
      "div",
      { class: "end-columns" },
      make(
        "section",
        { class: "block" },
        make("h3", {}, t("end.sure")),
        drawBars(
          words.map((word, index) => ({
            name: names[index],
            share: word.probability,
            chosen: false,
            key: `end-${index}`,
            press: () => go({ step: `dec.${index + 1}` }),
            label: t("end.word", { token: names[index], share: percent(word.probability) }),
          })),
          t("end.sure"),
        ),
        make(
          "p",
          { class: "note" },
          t("end.chance", { chance: chance < 1e-4 ? chance.toExponential(1) : percent(chance) }),
          state.method === "sample" && [" ", t("end.own")],
        ),
      ),
      looks && !isOff("cross", state) && drawAlignment(page, looks, names, source.pieces.map(readable)),
    ),
  );
}

/** Draw the cross-attention of the last layer, its heads averaged where it has several. Row i is what was looked at to write word i. */
export function drawAlignment({ t }, weights, rows, columns, key = "alignment") {
  const average = mean(part(weights, weights.dims[0] - 1));
  const one = weights.dims[0] * weights.dims[1] === 1 ? ".one" : "";
  const title = t(`end.alignment${one}`);
  return make(
    "section",
    { class: "block" },
    make("h3", {}, title, drawLegend("weight")),
    make("p", { class: "note" }, t(`end.alignment.note${one}`)),
    drawMatrix(average, {
      key,
      label: title,
      rows: rows.slice(0, average.dims[0]),
      columns,
      ramp: "weight",
      hint: t("matrix.hint"),
      describe: (row, column) =>
        t("head.cell", { query: rows[row], key: columns[column], share: percent(at(average, row, column)) }),
    }),
  );
}
