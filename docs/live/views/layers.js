// A layer of the encoder or the decoder: its boxes as in Figure 1 of the paper, and what is inside the open one.

import { drawAttention, isOff, nameText } from "./attention.js";
import { make, replace } from "./dom.js";
import { drawFigures, drawLegend, drawMatrix, drawTable, strongest } from "./draw.js";
import { add, at, figure, part, percent, spread } from "./tensor.js";

export const BOXES = {
  enc: ["self", "self.norm", "ffn", "ffn.norm"],
  dec: ["self", "self.norm", "cross", "cross.norm", "ffn", "ffn.norm"],
};

/**
 * What a view of a layer gets.
 * @typedef {object} Layer
 * @property {"enc" | "dec"} side
 * @property {number} number From 0.
 * @property {number} count Layers of this side.
 * @property {Object<string, import("./tensor.js").Tensor>} trace
 * @property {string[]} tokens Of this side.
 * @property {string[]} source Tokens of the source.
 * @property {string[]} [names] For each token of the target what it is and what was written after it.
 */

/**
 * @param {import("../app.js").Page} page
 * @param {Layer} layer
 * @returns {HTMLElement}
 */
export function drawLayer(page, layer) {
  const { state } = page;
  const boxes = BOXES[layer.side];
  const open = boxes.includes(state.open) ? state.open : layer.side === "dec" ? "cross" : "self";
  return make(
    "div",
    { class: `layer layer-${layer.side}` },
    drawPlan(page, layer, boxes, open),
    make("section", { class: "panel", "aria-live": "off" }, drawBox(page, layer, open)),
  );
}

function drawPlan(page, layer, boxes, open) {
  const { t, go, state } = page;
  const side = layer.side;
  const box = (name) =>
    make(
      "button",
      {
        type: "button",
        class: `box box-${name.split(".").at(-1)}${isOff(kindOf(side, name), state) ? " off" : ""}`,
        "aria-pressed": name === open,
        dataset: { key: `box-${name}` },
        onclick: () => go({ open: name, head: null }),
      },
      nameBox(page, side, name),
    );
  const pairs = boxes.filter((name) => !name.endsWith("norm"));
  const layers = [...Array(layer.count).keys()].map((number) =>
    make(
      "button",
      {
        type: "button",
        class: "chip",
        "aria-pressed": number === layer.number,
        dataset: { key: `layer-${number}` },
        "aria-label": t("layer.number", { number: number + 1 }),
        onclick: () => go({ layer: number, head: null }),
      },
      String(number + 1),
    ),
  );
  return make(
    "nav",
    { class: "plan", "aria-label": t("layer.plan") },
    side === "dec" && make("div", { class: "plan-layers" }, make("span", {}, t("layer.layer")), layers),
    make(
      "ol",
      {},
      pairs.map((name) => make("li", { class: "sublayer" }, box(name), box(`${name}.norm`))),
    ),
  );
}

/** What a box is to the switches: the attention of the encoder has none. */
const kindOf = (side, name) => (side === "enc" ? "enc" : name);
const nameBox = ({ t, state }, side, name) => t(nameText(`box.${side}.${name}`, kindOf(side, name), state));

function drawBox(page, layer, open) {
  const title = make("h3", {}, nameBox(page, layer.side, open));
  if (open.endsWith(".norm")) return [title, drawNorm(page, layer, open.split(".")[0])];
  if (open === "ffn") return [title, drawFeedForward(page, layer)];
  return [title, drawAttention(page, attentionOf(layer, open))];
}

/** What the attention view needs. @param {Layer} layer @param {string} name "self" or "cross" */
export function attentionOf(layer, name) {
  const kind = kindOf(layer.side, name);
  const keys = name === "cross" ? layer.source : layer.tokens;
  return {
    kind,
    layer: layer.number,
    weights: part(layer.trace[`${name}.weights`], layer.number),
    queries: layer.tokens,
    keys,
    names: name === "cross" ? layer.names : undefined,
  };
}

/** Draw what a sublayer gives, a row a token. */
function drawStates(page, layer, name, title, choose = undefined) {
  return drawRows(page, layer, part(layer.trace[name], layer.number), title, choose);
}

function drawRows({ t }, layer, matrix, title, choose = undefined) {
  const name = t(`states.${title}`);
  const rows = layer.tokens;
  return make(
    "div",
    { class: "block" },
    make("h4", {}, name, drawLegend("signed", strongest(matrix.data))),
    drawMatrix(matrix, {
      key: `states-${title}`,
      label: t("matrix.label", { name, rows: rows.join(" "), width: matrix.dims[1] }),
      rows,
      choose,
      hint: title === "input" ? t("matrix.hint") : "",
      describe: (row, place) => t("matrix.cell", { token: rows[row], place, value: figure(at(matrix, row, place)) }),
    }),
  );
}

/** What enters a sublayer: the norm before it, or the embeddings. */
function inputOf({ side, number, trace }, sublayer) {
  const before = { self: null, cross: "self", ffn: side === "dec" ? "cross" : "self" }[sublayer];
  if (before) return part(trace[`${before}.norm`], number);
  if (number > 0) return part(trace["ffn.norm"], number - 1);
  return add(trace.embeddings, trace.positions_added);
}

function drawNorm(page, layer, sublayer) {
  const { t } = page;
  const take = (name) => part(layer.trace[`${sublayer}.${name}`], layer.number);
  const input = inputOf(layer, sublayer);
  const [output, sum, norm] = ["output", "sum", "norm"].map(take);
  const detail = make("div", { class: "detail" });
  const show = (row, place) => {
    const vectors = [input, output, sum, norm].map((matrix) => part(matrix, row).data);
    replace(detail, ...drawNormOf(t, layer.tokens[row], place, vectors));
  };
  show(Math.max(0, Math.min(page.state.query, layer.tokens.length - 1)), 0);
  const rows = Object.entries({ input, plus: output, sum, norm });
  return [
    make("p", { class: "note" }, t("norm.note")),
    rows.map(([name, matrix]) => drawRows(page, layer, matrix, name, show)),
    make("p", { class: "note" }, t("figures.hint")),
    detail,
  ];
}

/** Write a token's way through residual connection and norm out: one place of its vector, and those around it. */
function drawNormOf(t, token, place, [input, output, sum, norm]) {
  const [middle, width] = spread(sum);
  const regular = sum.map((value) => (value - middle) / width);
  const said = { token, place, middle: figure(middle, 3), width: figure(width) };
  const vectors = { x: input, fx: output, sum, regular, norm };
  for (const [name, vector] of Object.entries(vectors)) said[name] = figure(vector[place]);
  const rows = [
    { name: "x", values: input },
    { name: "f(x)", values: output },
    { name: "x + f(x)", values: sum, strong: true },
    { name: "(z − μ) / σ", values: regular },
    { name: "LayerNorm", values: norm, strong: true },
  ];
  return [
    make("p", {}, t("norm.adds", said)),
    make("p", {}, t("norm.norms", said)),
    drawFigures(rows, place - 3, 8, t("norm.figures", said)),
  ];
}

function drawFeedForward(page, layer) {
  const { t } = page;
  const hidden = part(layer.trace["ffn.hidden"], layer.number);
  const [, width] = hidden.dims;
  const detail = make("div", { class: "detail" });
  const show = (row) => {
    const units = part(hidden, row).data;
    const order = [...units.keys()].sort((a, b) => units[b] - units[a]).slice(0, 8);
    const zeros = units.filter((value) => value === 0).length;
    const caption = t("ffn.units", { token: layer.tokens[row], zeros, width, share: percent(zeros / width) });
    const cells = [t("ffn.value"), ...order.map((unit) => figure(units[unit]))];
    const head = [t("ffn.unit"), ...order.map(String)];
    replace(detail, drawTable({ name: caption, caption, head, rows: [{ cells, kind: "strong" }] }));
  };
  show(Math.max(0, Math.min(page.state.query, layer.tokens.length - 1)));
  return [
    make("p", { class: "note" }, t("ffn.note", { inner: width, width: layer.trace["ffn.output"].dims.at(-1) })),
    drawRows(page, layer, inputOf(layer, "ffn"), "input"),
    drawRows(page, layer, hidden, "hidden", show),
    make("p", { class: "note" }, t("figures.hint")),
    detail,
    drawStates(page, layer, "ffn.output", "output"),
  ];
}
