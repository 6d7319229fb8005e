// Attention of a layer: where each token looks, in all heads at once, and a small picture of each head.

import { make } from "./dom.js";
import { drawArcs, HEADS, paint } from "./draw.js";
import { at, mean, part, percent } from "./tensor.js";
import { nameHead } from "../state.js";

/**
 * What an attention layer looks like to a view.
 * @typedef {object} Attention
 * @property {"enc" | "self" | "cross"} kind
 * @property {number} layer
 * @property {import("./tensor.js").Tensor} weights (heads, query_len, key_len)
 * @property {string[]} queries The tokens that look.
 * @property {string[]} keys The tokens that are looked at.
 * @property {string[]} [names] What to write for those that look.
 * @property {boolean} [closed] Whether nothing more can be shown of a head.
 */

/**
 * @param {import("../app.js").Page} page
 * @param {Attention} attention
 * @returns {HTMLElement}
 */
export function drawAttention(page, attention) {
  const { t, state, go } = page;
  const { kind, weights, queries, keys } = attention;
  const chosen = chooseQuery(state.query, attention);
  const average = mean(weights);
  const heads = [...Array(weights.dims[0]).keys()].map((name) => ({ name, weights: part(weights, name) }));
  const one = heads.length === 1 ? ".one" : "";
  const describe = (query) =>
    t(`attention.says${one}`, { token: queries[query], list: strongestOf(average, query, keys, t) });
  return make(
    "div",
    { class: `attention${kind === "cross" && isOff(kind, state) ? " off" : ""}` },
    make("p", { class: "note" }, t(attention.closed ? "attention.one" : nameText(`attention.${kind}`, kind, state))),
    make(
      "div",
      { class: "attention-pictures" },
      drawArcs({
        key: `arcs-${kind}`,
        queries: attention.names ?? queries,
        keys,
        heads,
        chosen,
        describe,
        choose: (query) => go({ query }),
        queryName: t("attention.queries"),
        keyName: t(`attention.keys${one}`),
      }),
      !attention.closed &&
        make(
          "div",
          { class: "attention-heads" },
          make("p", { class: "note" }, t("attention.heads")),
          make(
            "div",
            { class: "thumbs" },
            heads.map(({ name }) =>
              drawThumb(page, { kind, layer: attention.layer, head: name }, part(weights, name)),
            ),
          ),
        ),
    ),
  );
}

/** Whether a switch changes what an attention layer means: its mask is off, or what it gives is not added. */
export const isOff = (kind, { off }) =>
  (kind === "self" && off.includes("causal")) || (kind === "cross" && off.includes("cross"));

/** The key of a text about an attention layer: another one where a switch changes what it means. */
export const nameText = (key, kind, state) => (isOff(kind, state) ? `${key}.off` : key);

/**
 * Draw a head as a small picture that opens it.
 * @param {import("../app.js").Page} page
 * @param {import("../state.js").Head} head
 * @param {import("./tensor.js").Tensor} weights (query_len, key_len)
 */
export function drawThumb({ t, state, go }, head, weights) {
  const off = state.off.includes(nameHead(head)) || (head.kind === "cross" && isOff(head.kind, state));
  const isMasked = head.kind === "self" && !state.off.includes("causal");
  const name = t(`head.name.${head.kind}`, { layer: head.layer + 1, head: head.head + 1 });
  return make(
    "button",
    {
      type: "button",
      class: `thumb${off ? " off" : ""}`,
      title: name,
      dataset: { key: `thumb-${nameHead(head)}` },
      "aria-label": off ? t("head.is-off", { name }) : name,
      onclick: () => {
        go({ head, key: -1 });
        document.getElementById("stage").scrollIntoView(); // which may be far above
      },
      "aria-pressed": state.head !== null && nameHead(state.head) === nameHead(head),
    },
    paint(weights, "weight", (row, column) => isMasked && column > row),
    make("span", { class: "swatch", style: { background: HEADS[head.head % HEADS.length] } }),
    make("span", {}, String(head.head + 1)),
  );
}

/** The tokens that get most, in words: "吃 61.0 %, 好 20.3 %". */
export function strongestOf(weights, query, keys, t, count = 3) {
  const best = keys.map((token, place) => [at(weights, query, place), token]).sort((a, b) => b[0] - a[0]);
  return best
    .slice(0, count)
    .map(([weight, token]) => `“${token}” ${percent(weight)}`)
    .join(t("list.comma"));
}

/**
 * The token whose attention is shown: the one that was chosen, else the last of a target, else of a source the one
 * that looks hardest at another.
 * @param {number} asked
 * @param {Attention} attention
 */
export function chooseQuery(asked, { kind, weights, queries }) {
  if (asked >= 0 && asked < queries.length) return asked;
  if (kind !== "enc") return queries.length - 1;
  const average = mean(weights);
  const [rows, columns] = average.dims;
  let best = [0, -1];
  for (let query = 0; query < rows - 1; query++) {
    // the last one is the end of the text
    for (let key = 0; key < columns - 1; key++) {
      const weight = query === key ? 0 : at(average, query, key);
      if (weight > best[1]) best = [query, weight];
    }
  }
  return best[0];
}
