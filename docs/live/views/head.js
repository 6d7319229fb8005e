// One head, down to the number: q, k and v, q·k / √d, mask, softmax, weighted sum.

import { chooseQuery, strongestOf } from "./attention.js";
import { make, replace } from "./dom.js";
import { drawFigures, drawLegend, drawMatrix, strongest, shade } from "./draw.js";
import { at, dot, figure, part, percent } from "./tensor.js";
import { nameHead } from "../state.js";

const SHOWN = 8; // numbers of a vector that are written out at once

/**
 * @param {import("../app.js").Page} page
 * @param {{query: Tensor, key: Tensor, value: Tensor, weights: Tensor, context: Tensor, causal: boolean,
 *     queries: string[], keys: string[]}} head Tensors of this head alone: (len, head_dim), weights (query_len, key_len).
 * @typedef {import("./tensor.js").Tensor} Tensor
 * @returns {HTMLElement}
 */
export function drawHead(page, head) {
  const { t, state, go } = page;
  const { weights, queries, keys } = head;
  const { kind } = state.head;
  const query = chooseQuery(state.query, {
    kind,
    layer: 0,
    weights: { dims: [1, ...weights.dims], data: weights.data },
    queries,
    keys,
  });
  const visible = (place) => !(head.causal && place > query);
  const key = state.key >= 0 && state.key < keys.length ? state.key : keyOf(weights, query);
  const numbers = computeRow(page, head, query, visible);
  const pick = (names, chosen, field, label) =>
    make(
      "div",
      { class: "picker", role: "group", "aria-label": label },
      make("span", { class: "picker-name" }, label),
      names.map((name, index) =>
        make(
          "button",
          {
            type: "button",
            class: "token",
            "aria-pressed": index === chosen,
            dataset: { key: `head-${field}-${index}` },
            onclick: () => go({ [field]: index }),
          },
          name,
        ),
      ),
    );
  return make(
    "div",
    { class: "view view-head" },
    drawTitle(page),
    make("p", { class: "lead" }, t(`head.lead.${kind}`)),
    pick(queries, query, "query", t("head.who-looks")),
    make(
      "div",
      { class: "head-top" },
      make(
        "section",
        { class: "block" },
        make("h4", {}, t("head.weights"), drawLegend("weight")),
        drawMatrix(weights, {
          key: "head-weights",
          label: t("head.matrix", { list: strongestOf(weights, query, keys, t) }),
          rows: queries,
          columns: keys,
          ramp: "weight",
          hidden: (row, column) => head.causal && column > row,
          chosen: [query, key],
          choose: (row, column) => go({ query: row, key: column }),
          describe: (row, column) =>
            t(head.causal && column > row ? "head.cell.hidden" : "head.cell", {
              query: queries[row],
              key: keys[column],
              share: percent(at(weights, row, column)),
            }),
        }),
      ),
      drawVectors(page, head, query),
    ),
    drawTable(page, head, query, key, numbers, visible),
    visible(key)
      ? drawProduct(page, head, query, key, numbers)
      : make("p", { class: "note" }, t("head.masked", { query: queries[query], key: keys[key] })),
    drawSum(page, head, query, numbers),
  );
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

/** Compute a row of attention again, as it is written in the paper: what is shown is the same as in the graph. */
function computeRow({ state }, { query, key, keys }, row, visible) {
  const q = part(query, row).data;
  const width = q.length;
  const scaled = !state.off.includes("scaling");
  const products = keys.map((_, place) => dot(q, part(key, place).data));
  const scores = products.map((product) => (scaled ? product / Math.sqrt(width) : product));
  const masked = scores.map((score, place) => (visible(place) ? score : -Infinity));
  const largest = Math.max(...masked);
  const powers = masked.map((score) => Math.exp(score - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return {
    q,
    width,
    scaled,
    products,
    scores,
    masked,
    largest,
    powers,
    total,
    weights: powers.map((power) => power / total),
  };
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

function drawTable({ t, go }, head, row, chosen, numbers, visible) {
  const { products, scores, weights, scaled, width } = numbers;
  const columns = [
    "q · k",
    scaled ? `÷ √${width}` : t("head.unscaled"),
    ...(head.causal ? [t("head.mask")] : []),
    "softmax",
  ];
  return make(
    "section",
    { class: "block" },
    make("h4", {}, t("head.scores", { query: head.queries[row] })),
    make(
      "p",
      { class: "note" },
      t(scaled ? "head.scores.note" : "head.scores.unscaled", { width, root: figure(Math.sqrt(width)) }),
    ),
    make(
      "div",
      {
        class: "scroller",
        tabindex: 0,
        role: "region",
        "aria-label": t("head.scores", { query: head.queries[row] }),
        dataset: { scroll: "scores" },
      },
      make(
        "table",
        { class: "figures scores" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            make("th", { scope: "col" }, "k"),
            columns.map((name) => make("th", { scope: "col" }, name)),
          ),
        ),
        make(
          "tbody",
          {},
          head.keys.map((name, place) =>
            make(
              "tr",
              { class: place === chosen ? "strong" : visible(place) ? "" : "masked" },
              make(
                "th",
                { scope: "row" },
                make(
                  "button",
                  {
                    type: "button",
                    class: "token",
                    "aria-pressed": place === chosen,
                    dataset: { key: `score-${place}` },
                    onclick: () => go({ key: place }),
                  },
                  name,
                ),
              ),
              make("td", {}, figure(products[place])),
              make("td", {}, figure(scores[place])),
              head.causal && make("td", {}, visible(place) ? t("head.seen") : "−∞"),
              make(
                "td",
                { class: "weight" },
                make("i", {
                  style: {
                    width: `${100 * weights[place]}%`,
                    background: `rgb(${shade(weights[place]).join()})`,
                  },
                }),
                make("span", {}, percent(weights[place])),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

function drawProduct({ t }, head, row, place, numbers) {
  const k = part(head.key, place).data;
  const { q, products, scores, masked, width, scaled, powers, total, weights } = numbers;
  const terms = q.map((value, i) => value * k[i]);
  const names = { query: head.queries[row], key: head.keys[place] };
  const order = [...terms.keys()].sort((a, b) => Math.abs(terms[b]) - Math.abs(terms[a]));
  const first = order
    .slice(0, 3)
    .map((i) => `${figure(q[i])} × ${inBrackets(k[i])}`)
    .join(" + ");
  const strip = { dims: [3, width], data: Float32Array.from([...q, ...k, ...terms]) };
  const figures = make("div", {});
  const show = (dimension) =>
    replace(
      figures,
      drawFigures(
        [
          { name: "q", values: q },
          { name: "k", values: k },
          { name: "q × k", values: terms, strong: true },
        ],
        dimension - 3,
        SHOWN,
        t("head.products", names),
      ),
    );
  show(order[0]);
  const power = figure(masked[place] - numbers.largest);
  return make(
    "section",
    { class: "block" },
    make("h4", {}, t("head.product", names)),
    drawMatrix(strip, {
      key: "head-product",
      label: t("head.product", names),
      rows: ["q", "k", "q × k"],
      choose: (_, dimension) => show(dimension),
      hint: t("head.product.hint"),
      describe: (_, i) => `${i}: ${figure(q[i])} × ${inBrackets(k[i])} = ${figure(terms[i])}`,
    }),
    figures,
    make(
      "ul",
      { class: "formulas" },
      make("li", {}, `q · k = ${first} + … = `, make("b", {}, figure(products[place]))),
      scaled &&
        make(
          "li",
          {},
          `q · k / √${width} = ${figure(products[place])} / ${figure(Math.sqrt(width))} = `,
          make("b", {}, figure(scores[place])),
        ),
      make(
        "li",
        {},
        `softmax: e^(${figure(scores[place])} − ${inBrackets(numbers.largest)}) / Σ = e^${inBrackets(masked[place] - numbers.largest)} / ${figure(total, 3)} = ${figure(powers[place], 3)} / ${figure(total, 3)} = `,
        make("b", {}, percent(weights[place])),
      ),
    ),
    power === "0.00" && make("p", { class: "note" }, t("head.largest")),
  );
}

const inBrackets = (value) => (value < 0 ? `(${figure(value)})` : figure(value));

function drawSum({ t, state }, head, row, { weights }) {
  const width = head.value.dims[1];
  const used = weights.map((weight, place) => [weight, place]).sort((a, b) => b[0] - a[0]);
  const shown = used.slice(0, 6).filter(([weight]) => weight >= 0.005);
  const off = state.off.includes(nameHead(state.head));
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
    make("p", { class: "note" }, t(off ? "head.sum.off" : "head.sum.note", { token: head.queries[row] })),
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
