// One head, down to the number: q, k and v, q·k / √d, mask, softmax, weighted sum.

import { chooseQuery, isOff, nameText, strongestOf } from "./attention.js";
import { make } from "./dom.js";
import { drawLegend, drawMatrix, strongest } from "./draw.js";
import { computeRow, drawProduct, drawScores, inBrackets } from "./scores.js";
import { at, figure, part, percent } from "./tensor.js";
import { nameHead } from "../state.js";

/**
 * @param {import("../app.js").Page} page
 * @param {{query: Tensor, key: Tensor, value: Tensor, weights: Tensor, context: Tensor, causal: boolean,
 *     queries: string[], keys: string[]}} head Tensors of this head alone: (len, head_dim), weights (query_len, key_len).
 * @typedef {import("./tensor.js").Tensor} Tensor
 * @returns {HTMLElement}
 */
export function drawHead(page, head) {
  const { t, state } = page;
  const { weights, queries, keys } = head;
  const { kind } = state.head;
  const all = { dims: [1, ...weights.dims], data: weights.data };
  const query = chooseQuery(state.query, { kind, layer: 0, weights: all, queries, keys });
  const isVisible = (place) => !(head.causal && place > query);
  const key = state.key >= 0 && state.key < keys.length ? state.key : keyOf(weights, query);
  const row = computeRow(page, head, query, isVisible);
  const hidden = t("head.masked", { query: queries[query], key: keys[key] });
  return make(
    "div",
    { class: "view view-head" },
    drawTitle(page),
    make("p", { class: "lead" }, t(nameText(`head.lead.${kind}`, kind, state))),
    drawQueries(page, queries, query),
    make("div", { class: "head-top" }, drawWeights(page, head, [query, key]), drawVectors(page, head, query)),
    drawScores(page, head, { query, key, row, isVisible }),
    isVisible(key) ? drawProduct(page, head, { query, key, row }) : make("p", { class: "note" }, hidden),
    drawSum(page, head, query, row),
  );
}

/** The tokens that look, to choose from. */
function drawQueries({ t, go }, queries, chosen) {
  const name = t("head.who-looks");
  const buttons = queries.map((query, index) =>
    make(
      "button",
      {
        type: "button",
        class: "token",
        "aria-pressed": index === chosen,
        dataset: { key: `head-query-${index}` },
        onclick: () => go({ query: index }),
      },
      query,
    ),
  );
  const group = { class: "picker", role: "group", "aria-label": name };
  return make("div", group, make("span", { class: "picker-name" }, name), buttons);
}

/** The matrix of weights; a click chooses who looks, and at what. */
function drawWeights({ t, go }, { weights, queries, keys, causal }, chosen) {
  const isHidden = (row, column) => causal && column > row;
  const drawing = drawMatrix(weights, {
    key: "head-weights",
    label: t("head.matrix", { list: strongestOf(weights, chosen[0], keys, t) }),
    rows: queries,
    columns: keys,
    ramp: "weight",
    hidden: isHidden,
    chosen,
    choose: (row, column) => go({ query: row, key: column }),
    describe: (row, column) =>
      t(isHidden(row, column) ? "head.cell.hidden" : "head.cell", {
        query: queries[row],
        key: keys[column],
        share: percent(at(weights, row, column)),
      }),
  });
  return make("section", { class: "block" }, make("h4", {}, t("head.weights"), drawLegend("weight")), drawing);
}

function drawTitle({ t, state, go }) {
  const head = state.head;
  const name = nameHead(head);
  const off = state.off.includes(name);
  return make(
    "div",
    { class: "head-title" },
    make(
      "button",
      { type: "button", class: "button", dataset: { key: "head-close" }, onclick: () => go({ head: null, key: -1 }) },
      t("head.close"),
    ),
    make("h3", {}, t(`head.name.${head.kind}`, { layer: head.layer + 1, head: head.head + 1 })),
    make(
      "label",
      { class: "switch" },
      make("input", {
        type: "checkbox",
        checked: !off,
        dataset: { key: "head-switch" },
        onchange: () => go({ off: off ? state.off.filter((one) => one !== name) : [...state.off, name] }),
      }),
      t("head.on"),
    ),
  );
}

/** The key with the largest weight. */
function keyOf(weights, query) {
  let best = 0;
  for (let place = 1; place < weights.dims[1]; place++)
    if (at(weights, query, place) > at(weights, query, best)) best = place;
  return best;
}

function drawVectors({ t }, head, row) {
  const rows = [
    ["q", head.query, head.queries[row], row],
    ["k", head.key, null],
    ["v", head.value, null],
  ];
  return make(
    "div",
    { class: "vectors" },
    rows.map(([name, matrix, token, index]) => {
      const shown = token === null ? matrix : { dims: [1, matrix.dims[1]], data: part(matrix, index).data };
      const names = token === null ? head.keys : [token];
      return make(
        "section",
        { class: "block" },
        make("h4", {}, t(`head.${name}`), drawLegend("signed", strongest(shown.data))),
        drawMatrix(shown, {
          key: `head-${name}`,
          label: t("matrix.label", { name, rows: names.join(" "), width: matrix.dims[1] }),
          rows: names,
          describe: (place, dimension) =>
            t("matrix.cell", { token: names[place], place: dimension, value: figure(at(shown, place, dimension)) }),
        }),
      );
    }),
  );
}

function drawSum({ t, state }, head, row, { weights }) {
  const width = head.value.dims[1];
  const used = weights.map((weight, place) => [weight, place]).sort((a, b) => b[0] - a[0]);
  const shown = used.slice(0, 6).filter(([weight]) => weight >= 0.005);
  const off = state.off.includes(nameHead(state.head));
  const isUnused = off || (state.head.kind === "cross" && isOff("cross", state));
  const result = part(head.context, row).data;
  const names = [...shown.map(([weight, place]) => `${percent(weight)} × ${head.keys[place]}`), t("head.result")];
  const rows = shown.flatMap(([weight, place]) => [...part(head.value, place).data].map((value) => weight * value));
  const strip = { dims: [shown.length + 1, width], data: Float32Array.from([...rows, ...result]) };
  const sum = (dimension) =>
    shown.map(([weight, place]) => `${figure(weight)} × ${inBrackets(at(head.value, place, dimension))}`).join(" + ");
  const rest = shown.length < weights.length ? " + …" : "";
  return make(
    "section",
    { class: "block sum" },
    make("h4", {}, t("head.sum")),
    make("p", { class: "note" }, t(isUnused ? "head.sum.off" : "head.sum.note", { token: head.queries[row] })),
    drawMatrix(strip, {
      key: "head-sum",
      label: t("head.sum"),
      rows: names,
      hint: t("head.sum.hint"),
      describe: (_, dimension) =>
        `${dimension}: ${sum(dimension)}${rest} = ${figure(result[dimension])}${off ? ` (${t("head.sum.zero")})` : ""}`,
    }),
  );
}
