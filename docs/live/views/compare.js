// The same word in three models: an RNN with one fixed vector, an RNN with attention, the Transformer.

import { drawAlignment } from "./end.js";
import { make } from "./dom.js";
import { readable } from "./tokens.js";

// From short to long: the models have learned from words of mostly under 15 letters.
const WORDS = ["cat", "phone", "transformer", "telecommunications", "internationalization", "electroencephalography"];

/**
 * @param {import("../app.js").Page} page
 * @param {{name: string, run: import("../run.js").Run | null, trace: any, why: string}[]} columns `why` it failed.
 * @returns {HTMLElement}
 */
export function drawCompare(page, columns) {
  const { t, go } = page;
  return make(
    "div",
    { class: "view view-compare" },
    make("p", { class: "lead" }, t("compare.lead")),
    make(
      "div",
      { class: "examples" },
      make("span", {}, t("compare.try")),
      WORDS.map((word) =>
        make(
          "button",
          {
            type: "button",
            class: "chip",
            lang: "en",
            "aria-pressed": page.text === word,
            dataset: { key: `compare-${word}` },
            onclick: () => go({ text: word, forced: [] }),
          },
          word,
        ),
      ),
    ),
    make(
      "div",
      { class: "compare" },
      columns.map((column) => make("section", { class: "compare-column" }, drawColumn(page, column))),
    ),
  );
}

function drawColumn(page, { name, run, trace, why }) {
  const { t } = page;
  const kind = name.startsWith("g2p") ? "transformer" : name;
  const title = make("h3", {}, t(`compare.${kind}`), make("small", {}, name));
  if (why) return [title, make("p", { class: "error" }, t("error.load", { what: name, why }))];
  if (!run?.done) return [title, make("p", { class: "note" }, t("compare.waits"))];
  const weights = trace?.["cross.weights"];
  const ids = run.words.map((word) => word.id);
  const countOf = (all) => all.filter((id) => id !== run.model.endId).length;
  const rows = run.words.map((word) => readable(word.piece));
  return [
    title,
    make("p", { class: "note" }, t(`compare.${kind}.note`)),
    make("p", { class: "target", lang: "en" }, run.text || t("end.empty")),
    make("p", { class: "note" }, t("compare.count", { letters: countOf(run.source.ids), phonemes: countOf(ids) })),
    weights
      ? drawAlignment(page, weights, rows, run.source.pieces.map(readable), `compare-${name}`)
      : make(
          "div",
          { class: "bottleneck", role: "img", "aria-label": t("compare.bottleneck") },
          make(
            "span",
            { class: "letters" },
            run.source.pieces.map((piece) => make("i", {}, readable(piece))),
          ),
          make("span", { class: "vector" }, t("compare.vector")),
          make(
            "span",
            { class: "letters" },
            rows.map((row) => make("i", {}, row)),
          ),
        ),
  ];
}
