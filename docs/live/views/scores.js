// How a head scores: q·k, divided by √d, masked, and turned into weights; and where one of the scores comes from.

import { make, replace } from "./dom.js";
import { drawFigures, drawMatrix, drawTable, shade } from "./draw.js";
import { dot, figure, part, percent } from "./tensor.js";

const SHOWN = 8; // numbers of a vector that are written out at once

/** A number that follows a sign. @param {number} value */
export const inBrackets = (value) => (value < 0 ? `(${figure(value)})` : figure(value));

/**
 * Compute a row of attention once more, as the paper writes it, from q and k of the graph.
 * @param {import("../app.js").Page} page
 * @param {any} head As `drawHead` gets it.
 * @param {number} row Of the token that looks.
 * @param {(place: number) => boolean} isVisible Whether the mask lets it see a token.
 */
export function computeRow({ state }, { query, key, keys }, row, isVisible) {
  const q = part(query, row).data;
  const width = q.length;
  const scaled = !state.off.includes("scaling");
  const products = keys.map((_, place) => dot(q, part(key, place).data));
  const scores = products.map((product) => (scaled ? product / Math.sqrt(width) : product));
  const masked = scores.map((score, place) => (isVisible(place) ? score : -Infinity));
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

/**
 * The scores of all tokens, as a table; a token is chosen by a click.
 * @param {import("../app.js").Page} page
 * @param {any} head
 * @param {{query: number, key: number, row: ReturnType<typeof computeRow>, isVisible: (place: number) => boolean}} chosen
 */
export function drawScores({ t, go }, head, { query, key, row, isVisible }) {
  const { products, scores, weights, scaled, width } = row;
  const name = t("head.scores", { query: head.queries[query] });
  const note = t(scaled ? "head.scores.note" : "head.scores.unscaled", { width, root: figure(Math.sqrt(width)) });
  const mask = head.causal ? [t("head.mask")] : [];
  const choice = (place) => ({
    type: "button",
    class: "token",
    "aria-pressed": place === key,
    dataset: { key: `score-${place}` },
    onclick: () => go({ key: place }),
  });
  const table = drawTable({
    name,
    kind: "scores",
    head: ["k", "q · k", scaled ? `÷ √${width}` : t("head.unscaled"), ...mask, "softmax"],
    rows: head.keys.map((token, place) => ({
      cells: [
        make("button", choice(place), token),
        figure(products[place]),
        figure(scores[place]),
        ...mask.map(() => (isVisible(place) ? t("head.seen") : "−∞")),
        drawWeight(weights[place]),
      ],
      kind: place === key ? "strong" : isVisible(place) ? "" : "masked",
    })),
  });
  return make("section", { class: "block" }, make("h4", {}, name), make("p", { class: "note" }, note), table);
}

/** A cell with a weight as a bar. */
function drawWeight(weight) {
  const style = { width: `${100 * weight}%`, background: `rgb(${shade(weight).join()})` };
  return make("td", { class: "weight" }, make("i", { style }), make("span", {}, percent(weight)));
}

/**
 * One score: the products of q and k, number by number, and what becomes of their sum.
 * @param {import("../app.js").Page} page
 * @param {any} head
 * @param {{query: number, key: number, row: ReturnType<typeof computeRow>}} chosen
 */
export function drawProduct({ t }, head, { query, key, row }) {
  const { q, width } = row;
  const k = part(head.key, key).data;
  const terms = q.map((value, i) => value * k[i]);
  const names = { query: head.queries[query], key: head.keys[key] };
  const order = [...terms.keys()].sort((a, b) => Math.abs(terms[b]) - Math.abs(terms[a]));
  const vectors = [
    { name: "q", values: q },
    { name: "k", values: k },
    { name: "q × k", values: terms, strong: true },
  ];
  const figures = make("div", {});
  const show = (dimension) => replace(figures, drawFigures(vectors, dimension - 3, SHOWN, t("head.products", names)));
  show(order[0]);
  const product = (i) => `${figure(q[i])} × ${inBrackets(k[i])}`;
  const strips = drawMatrix(
    { dims: [3, width], data: Float32Array.from([...q, ...k, ...terms]) },
    {
      key: "head-product",
      label: t("head.product", names),
      rows: vectors.map(({ name }) => name),
      choose: (_, dimension) => show(dimension),
      hint: t("head.product.hint"),
      describe: (_, i) => `${i}: ${product(i)} = ${figure(terms[i])}`,
    },
  );
  const isLargest = row.masked[key] === row.largest;
  return make(
    "section",
    { class: "block" },
    make("h4", {}, t("head.product", names)),
    strips,
    figures,
    drawFormulas(row, key, order.slice(0, 3).map(product)),
    isLargest && make("p", { class: "note" }, t("head.largest")),
  );
}

/** The way from q·k to the weight, with its numbers. */
function drawFormulas({ products, scores, masked, largest, powers, total, weights, width, scaled }, key, terms) {
  const line = (text, result) => make("li", {}, `${text} = `, make("b", {}, result));
  const power = `e^${inBrackets(masked[key] - largest)} / ${figure(total, 3)}`;
  const share = `${figure(powers[key], 3)} / ${figure(total, 3)}`;
  return make(
    "ul",
    { class: "formulas" },
    line(`q · k = ${terms.join(" + ")} + …`, figure(products[key])),
    scaled && line(`q · k / √${width} = ${figure(products[key])} / ${figure(Math.sqrt(width))}`, figure(scores[key])),
    line(
      `softmax: e^(${figure(scores[key])} − ${inBrackets(largest)}) / Σ = ${power} = ${share}`,
      percent(weights[key]),
    ),
  );
}
