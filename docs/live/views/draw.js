// The drawings: a matrix as colours, weights as lines between two columns of tokens, shares as bars.

import { make, makeSvg, replace } from "./dom.js";
import { at, figure, part, percent } from "./tensor.js";
import { drawMatrix as drawCells, signedColour, weightColour } from "../draw.js"; // of the package's attention page

/** The colour of a weight. The package's grows with its root; a page of few tokens has no need for that. */
export const shade = (weight) => weightColour(weight * weight);

// A colour for each head (Okabe and Ito).
export const HEADS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#a8a000", "#7f7f7f"];

/** The colours of a ramp on the page as it is now, dark or light. @returns {(value: number) => number[]} */
function colours(ramp, most) {
  const isDark = document.documentElement.dataset.theme === "dark";
  return ramp === "weight" ? shade : (value) => signedColour(value, most, isDark);
}

/** The number that gets the strongest colour: 1 of 200 is larger. @param {Float32Array} values */
export function strongest(values) {
  const sizes = Float32Array.from(values, Math.abs).filter(Number.isFinite).sort();
  return sizes[Math.floor(0.995 * (sizes.length - 1))] || 1;
}

/**
 * Paint a matrix, a pixel for each number; the page's style stretches it.
 * @param {import("./tensor.js").Tensor} matrix (rows, columns)
 * @param {"weight" | "signed"} ramp
 * @param {(row: number, column: number) => boolean} [hidden] Whether a number is behind a mask.
 * @returns {HTMLCanvasElement}
 */
export function paint(matrix, ramp, hidden = () => false) {
  const [rows, columns] = matrix.dims;
  const canvas = /** @type {HTMLCanvasElement} */ (make("canvas"));
  const values = Array.from({ length: rows }, (_, row) => part(matrix, row).data);
  drawCells(canvas, values, colours(ramp, ramp === "signed" ? strongest(matrix.data) : 1));
  const pencil = canvas.getContext("2d");
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      if (hidden(row, column)) pencil.clearRect(column, row, 1, 1); // the page's hatching shows through
    }
  }
  return canvas;
}

/**
 * Draw a matrix with the names of its rows, and perhaps of its columns. The pointer or the arrow keys choose a number,
 * which is written below.
 * @param {import("./tensor.js").Tensor} matrix (rows, columns)
 * @param {{key: string, label: string, rows: string[], columns?: string[], ramp?: "weight" | "signed", hint?: string,
 *     describe: (row: number, column: number) => string, hidden?: (row: number, column: number) => boolean,
 *     chosen?: number[], choose?: (row: number, column: number) => void}} options
 * @returns {HTMLElement}
 */
export function drawMatrix(matrix, options) {
  const { key, label, rows, columns, ramp = "signed", hint = "", describe, hidden, choose } = options;
  const said = make("p", { class: "readout", id: `readout-${key}`, "aria-live": "polite" }, hint);
  const frame = make("div", { class: "matrix-cursor", hidden: true });
  const canvas = paint(matrix, ramp, hidden);
  const [height, width] = matrix.dims;
  let cell = options.chosen ?? null;
  const mark = (row, column) => {
    frame.hidden = false;
    Object.assign(frame.style, { left: `${(100 * column) / width}%`, top: `${(100 * row) / height}%` });
    Object.assign(frame.style, { width: `${100 / width}%`, height: `${100 / height}%` });
  };
  const show = (row, column) => {
    cell = [row, column];
    mark(row, column);
    said.textContent = describe(row, column);
  };
  Object.assign(canvas, { tabIndex: 0 });
  for (const [name, value] of [
    ["role", "img"],
    ["aria-label", label],
    ["aria-describedby", said.id],
  ])
    canvas.setAttribute(name, value);
  canvas.dataset.key = key;
  followPointer(canvas, [height, width], show, choose);
  followKeys(canvas, [height, width], () => cell, show, choose);
  if (cell && cell[0] < height && cell[1] < width) show(...cell);
  const cells = make("div", { class: "matrix-cells" }, canvas, frame);
  const names = make(
    "div",
    { class: "matrix-rows", "aria-hidden": "true" },
    rows.map((row) => make("span", {}, row)),
  );
  const heads =
    columns &&
    make(
      "div",
      { class: "matrix-columns", "aria-hidden": "true" },
      columns.map((column) => make("span", { class: standing(column) }, column)),
    );
  const grid = make("div", { class: `matrix ${columns ? "square" : "strips"}` }, heads, names, cells);
  for (const [name, value] of [
    ["--rows", height],
    ["--columns", width],
  ])
    grid.style.setProperty(name, String(value));
  return make("figure", { class: "drawing" }, grid, said);
}

/** How the name of a column is written: across, down as Chinese is, or turned as letters are. */
const standing = (name) =>
  name.length < 3 && !/\p{Script=Han}{2}/u.test(name) ? "" : /\p{Script=Han}/u.test(name) ? "down" : "down turned";

function followPointer(canvas, [height, width], show, choose) {
  const find = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * height);
    const column = Math.floor(((event.clientX - box.left) / box.width) * width);
    return [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(column, 0), width - 1)];
  };
  canvas.addEventListener("pointermove", (event) => show(...find(event)));
  canvas.addEventListener("click", (event) => {
    show(...find(event));
    choose?.(...find(event));
  });
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function followKeys(canvas, [height, width], where, show, choose) {
  canvas.addEventListener("focus", () => {
    if (!where()) show(0, 0);
  });
  canvas.addEventListener("keydown", (event) => {
    const [row, column] = where() ?? [0, 0];
    const move = MOVES[event.key];
    if (move) {
      show(Math.min(Math.max(row + move[0], 0), height - 1), Math.min(Math.max(column + move[1], 0), width - 1));
    } else if (event.key === "Enter" || event.key === " ") {
      choose?.(row, column);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation(); // the arrow keys of the page change the step
  });
}

/** Explain a ramp of colours. @param {"weight" | "signed"} ramp @param {number} [most] @returns {HTMLElement} */
export function drawLegend(ramp, most = 1) {
  const colour = colours(ramp, 1);
  const steps = [...Array(21).keys()].map((i) => colour(ramp === "weight" ? i / 20 : (i - 10) / 10));
  const bar = make(
    "span",
    { class: "legend-bar", "aria-hidden": "true" },
    steps.map((colour) => {
      return make("i", { style: { background: `rgb(${colour.join()})` } });
    }),
  );
  const [low, high] = ramp === "weight" ? ["0", "1"] : [figure(-most, 1), figure(most, 1)];
  return make("span", { class: "legend" }, low, bar, high);
}

/**
 * Draw where each token looks: the tokens that look at the left, those that are looked at to the right, a line for
 * each weight, in the colour of its head. One token at a time is chosen, and its weights are written out.
 * @param {{key: string, queries: string[], keys: string[], queryName: string, keyName: string, chosen: number,
 *     heads: {name: number, weights: import("./tensor.js").Tensor}[], choose: (query: number) => void,
 *     describe: (query: number) => string}} options Heads are numbered from 0; the lists' names are their headings.
 * @returns {HTMLElement}
 */
export function drawArcs(options) {
  const { key, queries, keys, heads, choose, describe } = options;
  const lines = makeSvg("svg", { class: "arc-lines", "aria-hidden": "true", preserveAspectRatio: "none" });
  const said = make("p", { class: "readout", "aria-live": "polite" });
  const count = Math.max(queries.length, keys.length);
  lines.setAttribute("viewBox", `0 0 100 ${count}`);
  const average = (query, place) =>
    heads.reduce((sum, head) => sum + at(head.weights, query, place), 0) / heads.length;
  const shares = keys.map(() => make("small", {}));
  const show = (chosen) => {
    replace(lines, ...heads.flatMap((head) => linesOf(head, chosen)));
    shares.forEach((share, place) => {
      const weight = average(chosen, place);
      share.textContent = weight < 0.005 ? "" : `${Math.round(100 * weight)}`;
      share.parentElement.style.setProperty("--share", `${(100 * weight).toFixed(1)}%`);
    });
    buttons.forEach((button, query) => button.classList.toggle("shown", query === chosen));
    said.textContent = describe(chosen);
  };
  const buttons = queries.map((token, query) =>
    make(
      "button",
      {
        class: "token",
        type: "button",
        "aria-pressed": query === options.chosen,
        dataset: { key: `${key}-${query}` },
        onclick: () => choose(query),
        onpointerenter: () => show(query),
        onfocus: () => show(query),
      },
      token,
    ),
  );
  const targets = keys.map((token, place) => make("li", { class: "token" }, make("span", {}, token), shares[place]));
  const left = make("div", { class: "arc-side queries", role: "group", "aria-label": options.queryName }, buttons);
  left.addEventListener("pointerleave", () => show(options.chosen));
  const box = make(
    "div",
    { class: "arcs", style: { "--count": count, "--row": count > 12 ? "1.75rem" : "2.1rem" } },
    make("h4", {}, options.queryName),
    make("span", {}),
    make("h4", {}, options.keyName),
    left,
    lines,
    make("ul", { class: "arc-side keys", "aria-label": options.keyName }, targets),
  );
  show(options.chosen);
  return make("figure", { class: "drawing" }, box, said);
}

function linesOf({ name, weights }, chosen) {
  const [queries, keys] = weights.dims;
  const lines = [];
  for (let query = 0; query < queries; query++) {
    for (let place = 0; place < keys; place++) {
      const weight = at(weights, query, place);
      const strong = query === chosen;
      if (weight < (strong ? 0.01 : 0.05)) continue;
      lines.push([
        strong,
        makeSvg("path", {
          d: `M0,${query + 0.5} C45,${query + 0.5} 55,${place + 0.5} 100,${place + 0.5}`,
          fill: "none",
          stroke: HEADS[name % HEADS.length],
          "stroke-width": 0.75 + 5 * weight,
          "stroke-opacity": strong ? 0.25 + 0.75 * weight : 0.16 * weight + 0.02,
          "vector-effect": "non-scaling-stroke",
        }),
      ]);
    }
  }
  return lines.sort((a, b) => a[0] - b[0]).map(([, line]) => line);
}

/**
 * Draw shares as bars that can be pressed.
 * @param {{name: string, share: number, chosen: boolean, out?: boolean, label: string, press: () => void,
 *     key: string, note?: string}[]} rows
 * @param {string} label What the bars are.
 * @returns {HTMLElement}
 */
export function drawBars(rows, label) {
  return make(
    "ol",
    { class: "bars", "aria-label": label },
    rows.map((row) =>
      make(
        "li",
        {},
        make(
          "button",
          {
            type: "button",
            class: `bar${row.chosen ? " chosen" : ""}${row.out ? " out" : ""}`,
            "aria-label": row.label,
            "aria-pressed": row.chosen,
            title: row.label,
            dataset: { key: row.key },
            onclick: row.press,
          },
          make("span", { class: "bar-name" }, row.name),
          make(
            "span",
            { class: "bar-track" },
            make("i", {
              style: { width: `${100 * row.share}%` },
            }),
          ),
          make("span", { class: "bar-share" }, percent(row.share)),
          row.note && make("span", { class: "bar-note" }, row.note),
        ),
      ),
    ),
  );
}

/**
 * Draw a table, which scrolls in a box of its own where it is too wide.
 * @param {{name: string, caption?: string, kind?: string, head?: string[],
 *     rows: {cells: any[], kind?: string}[]}} table name: what it is; the first cell of a row names it; kinds are
 *     classes of the style.
 * @returns {HTMLElement}
 */
export function drawTable({ name, caption = "", kind = "", head = [], rows }) {
  const titles = head.map((title) => (title ? make("th", { scope: "col" }, title) : make("td", {})));
  const row = ({ cells: [first, ...others], kind: rowKind = "" }) =>
    make(
      "tr",
      { class: rowKind },
      make("th", { scope: "row" }, first),
      others.map((cell) => (cell instanceof HTMLTableCellElement ? cell : make("td", {}, cell))),
    );
  const table = make(
    "table",
    { class: `figures ${kind}` },
    caption && make("caption", {}, caption),
    head.length > 0 && make("thead", {}, make("tr", {}, titles)),
    make("tbody", {}, rows.map(row)),
  );
  const box = { class: "scroller", tabindex: 0, role: "region", "aria-label": name, dataset: { scroll: name } };
  return make("div", box, table);
}

/**
 * Write numbers of a row out, a few at a time.
 * @param {{name: string, values: Float32Array, strong?: boolean}[]} rows
 * @param {number} first The first place that is shown.
 * @param {number} count
 * @param {string} caption
 * @returns {HTMLElement}
 */
export function drawFigures(rows, first, count, caption) {
  const { length } = rows[0].values;
  const start = Math.max(0, Math.min(first, length - count));
  const places = Array.from({ length: Math.min(count, length) }, (_, i) => start + i);
  return drawTable({
    name: caption,
    caption,
    head: ["", ...places.map(String)],
    rows: rows.map(({ name, values, strong }) => ({
      cells: [name, ...places.map((i) => figure(values[i]))],
      kind: strong ? "strong" : "",
    })),
  });
}
