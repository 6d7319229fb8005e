// The end: the whole target, how sure the model was of each token, and which word comes from where.

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
  return make(
    "div",
    { class: "view view-end" },
    make("p", { class: "lead" }, t(state.off.includes("cross") ? "end.lead.off" : "end.lead", { count: words.length }), " ", t(ended ? "end.ended" : "end.cut")),
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
        ),
      ),
      trace?.["cross.weights"] && drawAlignment(page, trace["cross.weights"], names, source.pieces.map(readable)),
    ),
  );
}

/** Draw the cross-attention of the last layer, all heads averaged. Row i is what was looked at to write word i. */
export function drawAlignment({ t }, weights, rows, columns, key = "alignment") {
  const average = mean(part(weights, weights.dims[0] - 1));
  return make(
    "section",
    { class: "block" },
    make("h3", {}, t("end.alignment"), drawLegend("weight")),
    make("p", { class: "note" }, t("end.alignment.note")),
    drawMatrix(average, {
      key,
      label: t("end.alignment"),
      rows: rows.slice(0, average.dims[0]),
      columns,
      ramp: "weight",
      hint: t("matrix.hint"),
      describe: (row, column) =>
        t("head.cell", { query: rows[row], key: columns[column], share: percent(at(average, row, column)) }),
    }),
  );
}
