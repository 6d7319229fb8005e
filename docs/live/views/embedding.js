// What enters the first layer: each token's vector, what is added for its position, and the sum.

import { make } from "./dom.js";
import { drawLegend, drawMatrix, strongest } from "./draw.js";
import { add, at, figure } from "./tensor.js";
import { readable } from "./tokens.js";

/**
 * @param {import("../app.js").Page} page
 * @param {{embeddings: import("./tensor.js").Tensor, positions_added: import("./tensor.js").Tensor}} trace
 * @returns {HTMLElement}
 */
export function drawEmbedding(page, trace) {
  const { t, source } = page;
  const rows = source.pieces.map(readable);
  const { embeddings, positions_added: positions } = trace;
  const sum = add(embeddings, positions);
  const width = embeddings.dims[1];
  const isOff = page.state.off.includes("positions");
  const one = (name, matrix, describe) =>
    make(
      "section",
      { class: `block block-${name}` },
      make("h4", {}, t(`embed.${name}`), drawLegend("signed", strongest(matrix.data))),
      make(
        "p",
        { class: "note" },
        t(name === "position" && isOff ? "embed.position.off" : `embed.${name}.note`, { width }),
      ),
      drawMatrix(matrix, {
        key: `embed-${name}`,
        label: t("matrix.label", { name: t(`embed.${name}`), rows: rows.join(" "), width }),
        rows,
        describe,
        hint: name === "word" ? t("matrix.hint") : "",
      }),
    );
  return make(
    "div",
    { class: "view view-embed" },
    make("p", { class: "lead" }, t("embed.lead", { width })),
    one("word", embeddings, (row, column) => t("matrix.cell", cell(rows, embeddings, row, column))),
    one("position", positions, (row, column) =>
      t(isOff ? "matrix.cell" : wave(column), {
        ...cell(rows, positions, row, column),
        position: row,
        pair: 2 * Math.floor(column / 2),
        width,
      }),
    ),
    one("sum", sum, (row, column) =>
      t("embed.adds", {
        ...cell(rows, sum, row, column),
        left: figure(at(embeddings, row, column)),
        right: figure(at(positions, row, column)),
      }),
    ),
  );
}

const wave = (column) => (column % 2 ? "embed.cosine" : "embed.sine");
const cell = (rows, matrix, row, column) => ({
  token: rows[row],
  place: column,
  value: figure(at(matrix, row, column)),
});
