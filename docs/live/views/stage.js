// What the current step shows.

import { drawAttention, nameText } from "./attention.js";
import { drawDistribution } from "./distribution.js";
import { make } from "./dom.js";
import { drawEmbedding } from "./embedding.js";
import { drawEnd } from "./end.js";
import { drawHead } from "./head.js";
import { drawLayer } from "./layers.js";
import { part } from "./tensor.js";
import { nameStep } from "./timeline.js";
import { drawTokens, readable } from "./tokens.js";
import { splitStep } from "../state.js";

/**
 * @param {import("../app.js").Page} page
 * @param {string} step
 * @param {{logits: Float32Array, trace: any} | null} decoded What the decoder computed for the word of this step.
 * @returns {HTMLElement[]}
 */
export function drawStage(page, step, decoded) {
  const { t, state, run } = page;
  const [name, number] = splitStep(step);
  const title = make("h2", {}, nameStep(page, step));
  const waits = make("p", { class: "note waits" }, t("waits"));
  if (state.head) {
    const head = findHead(page, decoded);
    if (head) return [drawHead(page, head)];
  }
  if (name === "tokens") return [title, page.source ? drawTokens(page) : waits];
  if (!run?.encoded) return [title, waits];
  const encoder = run.encoded.trace;
  if (name === "embed") return [title, drawEmbedding(page, encoder)];
  const source = page.source.pieces.map(readable);
  if (name === "enc") {
    const layer = {
      side: "enc",
      number: number - 1,
      count: encoder["self.weights"].dims[0],
      trace: encoder,
      tokens: source,
      source,
    };
    return [title, make("p", { class: "lead" }, t("enc.lead")), drawLayer(page, layer)];
  }
  if (!decoded) return [title, waits];
  if (name === "end") return [title, drawEnd(page, decoded.trace)];
  return [title, ...drawWord(page, number, decoded, source)];
}

function drawWord(page, number, { logits, trace }, source) {
  const { t, state } = page;
  const tokens = readTokens(page, number);
  const read = make(
    "p",
    { class: "read" },
    t("dec.read"),
    " ",
    tokens.map((token) => make("span", { class: "token" }, token)),
    make("span", { class: "token next" }, "?"),
  );
  const names = tokens.map((token, index) => `${token} → ${readable(page.run.words[index].piece)}`);
  const next = drawDistribution(page, logits, number);
  if (!trace?.["self.weights"]) {
    const weights = trace?.["cross.weights"];
    return [
      read,
      weights
        ? drawAttention(page, {
            kind: "cross",
            layer: 0,
            weights: part(weights, 0),
            queries: tokens,
            names,
            keys: source,
            closed: true,
          })
        : make("p", { class: "note" }, t("dec.no-attention")),
      next,
    ];
  }
  const count = trace["self.weights"].dims[0];
  const layer = state.layer < 0 || state.layer >= count ? count - 1 : state.layer;
  return [
    make("p", { class: "lead" }, t(nameText("dec.lead", "cross", state))),
    read,
    drawLayer(page, { side: "dec", number: layer, count, trace, tokens, source, names }),
    next,
  ];
}

/** The tokens that the decoder has read before it writes a word. */
function readTokens({ run }, number) {
  return run.prefix(number).map((id) => readable(run.model.targetTokenizer.piece(id)));
}

/** Take what belongs to the open head; null while it is not there yet. */
function findHead(page, decoded) {
  const { state, run, source } = page;
  const { kind, layer, head } = state.head;
  const trace = kind === "enc" ? run?.encoded?.trace : decoded?.trace;
  const group = kind === "cross" ? "cross" : "self";
  const weights = trace?.[`${group}.weights`];
  if (!weights || !trace[`${group}.query`] || layer >= weights.dims[0] || head >= weights.dims[1]) return null;
  const take = (name) => part(trace[`${group}.${name}`], layer, head);
  const of = source.pieces.map(readable);
  const target = kind === "enc" ? of : readTokens(page, weights.dims[2]);
  return {
    query: take("query"),
    key: take("key"),
    value: take("value"),
    weights: take("weights"),
    context: take("context"),
    causal: kind === "self" && !state.off.includes("causal"),
    queries: target,
    keys: kind === "cross" ? of : target,
  };
}
