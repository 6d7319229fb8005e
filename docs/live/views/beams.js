// Beam search as a tree that grows: a column for each step, the best on top, with scores and what was pruned.

import { make, makeSvg } from "./dom.js";
import { drawTable } from "./draw.js";
import { figure, percent } from "./tensor.js";
import { readable } from "./tokens.js";
import { pathTo } from "../search.js";

const WIDTH = 148;
const HEIGHT = 50;
const GAP = 40;
const TOP = 30; // of a column's boxes, in pixels

/**
 * @param {import("../app.js").Page} page
 * @param {number} until The last step that is drawn.
 * @returns {HTMLElement}
 */
export function drawBeams(page, until) {
  const { t, run } = page;
  const { beams, penalty } = run.state;
  const tree = run.trees[Math.min(Math.max(until, 1), run.trees.length) - 1];
  const nodes = tree.nodes.filter((node) => Number.isFinite(node.sum)); // what must not be repeated has no chance
  const said = make("p", { class: "readout", "aria-live": "polite" }, t("beams.hint"));
  const say = (text) => {
    said.textContent = text;
  };
  const name = t("beams.title");
  const box = { class: "scroller", tabindex: 0, role: "region", "aria-label": name, dataset: { scroll: "tree" } };
  const note = t("beams.note", { beams, twice: 2 * beams, penalty: figure(penalty, 1) });
  return make(
    "div",
    { class: "view view-beams" },
    make("p", { class: "note" }, note, run.state.forced.length > 0 && [" ", t("beams.forced")]),
    make("div", box, drawTree(page, nodes, new Set(idsTo(tree.nodes, tree.best)), say)),
    said,
    make("p", { class: "note" }, t("beams.scroll")),
    drawFinished(page, tree.nodes),
  );
}

/** Draw boxes for the nodes, and lines to their parents; those of the best text in their own colour. */
function drawTree(page, nodes, best, say) {
  const { t } = page;
  const columns = arrange(nodes);
  const place = new Map(columns.flatMap((column, step) => column.map((node, row) => [node.id, [step, row]])));
  const at = (id) => [place.get(id)[0] * (WIDTH + GAP), TOP + place.get(id)[1] * HEIGHT];
  const height = TOP + HEIGHT * Math.max(...columns.map((column) => column.length));
  const width = columns.length * (WIDTH + GAP) - GAP;
  const lines = nodes
    .filter((node) => place.has(node.parent))
    .map((node) => drawEdge(at(node.parent), at(node.id), `${node.state}${best.has(node.id) ? " best" : ""}`));
  const titles = columns.map((_, step) =>
    make(
      "span",
      { class: "tree-step", style: { left: `${step * (WIDTH + GAP)}px` } },
      step ? t("beams.step", { step }) : t("beams.start"),
    ),
  );
  return make(
    "div",
    { class: "tree", style: { width: `${width}px`, height: `${height}px` } },
    makeSvg("svg", { width, height, "aria-hidden": "true" }, lines.sort(bestLast)),
    titles,
    nodes.map((node) => drawNode(page, node, best, at(node.id), say)),
  );
}

/** Draw a line from a box to one in the next column; their corners are at the upper left. */
function drawEdge([left, from], [right, to], kind) {
  const half = (HEIGHT - 8) / 2;
  const middle = (left + WIDTH + right) / 2;
  const curve = `M${left + WIDTH},${from + half} C${middle},${from + half} ${middle},${to + half} ${right},${to + half}`;
  return makeSvg("path", { class: `edge ${kind}`, fill: "none", d: curve });
}

const bestLast = (a, b) => a.classList.contains("best") - b.classList.contains("best");

function idsTo(tree, id) {
  const ids = [];
  for (let node = tree[id]; node; node = tree[node.parent]) ids.push(node.id);
  return ids;
}

/** Put nodes into columns by their step, the best first. */
function arrange(nodes) {
  const columns = [];
  for (const node of nodes) (columns[node.step] ??= []).push(node);
  return columns.map((column) => column.sort((a, b) => b.sum - a.sum));
}

function drawNode({ t, run }, node, best, [left, top], say) {
  const { state } = node;
  const token = readable(run.model.targetTokenizer.piece(node.token));
  const label = t("beams.node", {
    token,
    share: percent(Math.exp(node.logProbability)),
    log: figure(node.logProbability),
    sum: figure(node.sum),
    length: node.step,
    penalty: figure(run.state.penalty, 1),
    score: figure(node.score, 3),
    state: t(`beams.${state}`),
  });
  const tell = () => say(label);
  return make(
    "button",
    {
      type: "button",
      class: `node ${state}${best.has(node.id) ? " best" : ""}`,
      style: { left: `${left}px`, top: `${top}px` },
      "aria-label": label,
      dataset: { key: `node-${node.id}` },
      onfocus: tell,
      onpointerenter: tell,
      onclick: tell,
    },
    make("b", {}, token),
    make("small", {}, node.step ? `${figure(node.logProbability)} · Σ ${figure(node.sum)}` : ""),
  );
}

/** List the texts that have ended, best score first. */
function drawFinished({ t, run }, nodes) {
  const ended = nodes.filter((node) => node.state === "finished" && Number.isFinite(node.sum));
  if (!ended.length) return make("p", { class: "note" }, t("beams.none"));
  ended.sort((a, b) => b.score - a.score);
  const textOf = (node) => run.model.targetTokenizer.decode(pathTo(nodes, node.id).slice(1));
  return drawTable({
    name: t("beams.finished"),
    caption: t("beams.finished"),
    kind: "finished",
    head: ["text", "sum", "length", "score"].map((name) => t(`beams.column.${name}`)),
    rows: ended.map((node, index) => ({
      cells: [textOf(node), figure(node.sum), String(node.step), figure(node.score, 3)],
      kind: index === 0 ? "strong" : "",
    })),
  });
}
