// From logits to a text: the most likely token each time, a token drawn by chance, or a beam of several texts.
//
// Each way is an async generator: it gives the page a step, and goes on when the page asks for the next one. The texts
// and scores are those of `generate()` in transformers. A text can be made to begin with given tokens.

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Encoded} Encoded */
/** @typedef {import("./model.js").Switches} Switches */

/**
 * A token that was written.
 * @typedef {object} Step
 * @property {number[]} prefix The ids before it, beginning with the start token.
 * @property {Float32Array} logits What the model says of each token of the vocabulary.
 * @property {number} chosen The token.
 * @property {number} probability What the model gives the chosen token, whatever temperature and top-p leave of it.
 */

/**
 * A token in the tree of a beam search.
 * @typedef {object} BeamNode
 * @property {number} id Its place in the list of nodes.
 * @property {number | null} parent The node before it; null for the start token.
 * @property {number} token
 * @property {number} logProbability Of the token after those before it.
 * @property {number} sum Of the log probabilities from the start to here.
 * @property {number} score sum / length ** lengthPenalty: what texts of different lengths are compared by.
 * @property {number} step How many tokens have been written with it.
 * @property {"alive" | "pruned" | "finished"} state Alive: on a beam, or before one or a finished one. Pruned: given up.
 */

/** Log of the softmax: log p_i = z_i - log sum_j exp(z_j). @param {ArrayLike<number>} logits @returns {Float64Array} */
export function logSoftmax(logits) {
  const largest = Array.prototype.reduce.call(logits, (most, one) => Math.max(most, one), -Infinity);
  let total = 0;
  for (let id = 0; id < logits.length; id++) total += Math.exp(logits[id] - largest);
  const shift = largest + Math.log(total);
  return Float64Array.from(logits, (logit) => logit - shift);
}

/**
 * Probabilities: p_i = exp(z_i / T) / sum_j exp(z_j / T). A temperature T below 1 makes likely tokens likelier.
 * @param {ArrayLike<number>} logits @param {number} [temperature] @returns {Float64Array}
 */
export function softmax(logits, temperature = 1) {
  if (!(temperature > 0)) throw new Error(`The temperature is ${temperature}, and has to be above 0.`);
  return logSoftmax(Float64Array.from(logits, (logit) => logit / temperature)).map(Math.exp);
}

/** The places of the k largest values, the largest first. @param {ArrayLike<number>} values @param {number} k */
function largestOf(values, k) {
  const found = [];
  for (let place = 0; place < values.length; place++) {
    if (found.length === k && values[place] <= values[found[k - 1]]) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]] < values[place]) at--;
    found.splice(at, 0, place);
    found.length = Math.min(found.length, k);
  }
  return found;
}

/**
 * The k most likely tokens, the likeliest first.
 * @param {ArrayLike<number>} logits @param {number} k
 * @returns {{id: number, probability: number, logProbability: number}[]}
 */
export function topTokens(logits, k) {
  const logs = logSoftmax(logits);
  return largestOf(logs, k).map((id) => ({ id, probability: Math.exp(logs[id]), logProbability: logs[id] }));
}

/**
 * Scores after what the model's generation_config.json says against repetitions; most models say nothing.
 * @param {Model} model @param {Float32Array | Float64Array} scores @param {number[]} prefix
 */
function withoutRepetitions(model, scores, prefix) {
  const { repetition_penalty: penalty, no_repeat_ngram_size: size } = model.generation;
  if (!penalty && !size) return scores;
  const changed = scores.slice();
  if (penalty) for (const id of new Set(prefix)) changed[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
  if (size) {
    const last = prefix.slice(prefix.length - size + 1).join(" ");
    for (let end = size - 1; end < prefix.length; end++) {
      if (prefix.slice(end - size + 1, end).join(" ") === last) changed[prefix[end]] = -Infinity;
    }
  }
  return changed;
}

/** Write token by token, each as `choose` says once the forced ones are written, up to the end token. */
async function* write(model, encoded, switches, { maxLength = model.maxLength, forced = [] }, choose) {
  let prefix = [model.startId];
  while (prefix.length <= maxLength && (prefix.length === 1 || prefix[prefix.length - 1] !== model.endId)) {
    const { logits } = await model.decode(prefix, encoded, switches);
    const free = choose(withoutRepetitions(model, logits, prefix)); // draws even where a token is forced: chance stays
    const chosen = forced[prefix.length - 1] ?? free;
    yield { prefix, logits, chosen, probability: softmax(logits)[chosen] };
    prefix = [...prefix, chosen];
  }
}

/**
 * The likeliest token each time.
 * @param {Model} model @param {Encoded} encoded @param {Switches} switches
 * @param {{maxLength?: number, forced?: number[]}} [options] maxLength: how many tokens to write at most. forced: the
 *     tokens that the text must begin with.
 * @returns {AsyncGenerator<Step>}
 */
export function greedy(model, encoded, switches, options = {}) {
  return write(model, encoded, switches, options, (logits) => largestOf(logits, 1)[0]);
}

/**
 * The tokens that may be drawn: the fewest likely ones that together have the probability topP (nucleus sampling,
 * Holtzman et al. 2020).
 * @param {ArrayLike<number>} logits @param {number} temperature @param {number} topP
 * @returns {{id: number, probability: number}[]} The likeliest first; the probabilities sum to 1.
 */
export function nucleus(logits, temperature, topP) {
  if (!(topP > 0 && topP <= 1)) throw new Error(`top-p is ${topP}, and has to be above 0 and at most 1.`);
  const probabilities = softmax(logits, temperature);
  const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
  let [count, total] = [0, 0];
  while (count < order.length && (count === 0 || total < topP)) total += probabilities[order[count++]];
  return order.slice(0, count).map((id) => ({ id, probability: probabilities[id] / total }));
}

/** Numbers from 0 to 1 by chance, always the same for a seed (mulberry32). @param {number} seed */
function chance(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * A token drawn by chance each time.
 * @param {Model} model @param {Encoded} encoded @param {Switches} switches
 * @param {{temperature?: number, topP?: number, seed?: number, maxLength?: number, forced?: number[]}} [options]
 * @returns {AsyncGenerator<Step>}
 */
export function sample(model, encoded, switches, options = {}) {
  const { temperature = 1, topP = 1, seed = 0 } = options;
  const next = chance(seed);
  return write(model, encoded, switches, options, (logits) => {
    const choices = nucleus(logits, temperature, topP);
    let left = next();
    return (choices.find((choice) => (left -= choice.probability) < 0) ?? choices[choices.length - 1]).id;
  });
}

/**
 * Several texts at a time: each step keeps the `beams` likeliest of all their continuations.
 *
 * After each step it yields the tree so far, as copies that stay as they are. The best node is the finished one of the
 * highest score; before there is one, the best on a beam.
 * @param {Model} model @param {Encoded} encoded @param {Switches} switches
 * @param {{beams?: number, lengthPenalty?: number, maxLength?: number, forced?: number[]}} [options] lengthPenalty: above
 *     0 helps long texts.
 * @returns {AsyncGenerator<{nodes: BeamNode[], best: number}>}
 */
export async function* beamSearch(model, encoded, switches, options = {}) {
  const { beams = model.generation.num_beams ?? 1, lengthPenalty = model.generation.length_penalty ?? 1 } = options;
  const { maxLength = model.maxLength, forced = [] } = options;
  /** @type {BeamNode[]} */
  const nodes = [
    { id: 0, parent: null, token: model.startId, logProbability: 0, sum: 0, score: 0, step: 0, state: "alive" },
  ];
  let running = [nodes[0]];
  /** @type {BeamNode[]} */
  let finished = []; // the best ones, as many as there are beams
  for (let step = 1; running.length; step++) {
    // Twice as many as beams: should all of them end, as many go on.
    const candidates = await continuations(model, encoded, switches, { nodes, running, beams, forced });
    const next = [];
    candidates.forEach(({ parent, token, logProbability }, rank) => {
      const sum = parent.sum + logProbability;
      const isEnd = token === model.endId || step === maxLength;
      const state = isEnd ? (rank < beams ? "finished" : "pruned") : next.length < beams ? "alive" : "pruned";
      const score = sum / step ** lengthPenalty;
      const node = { id: nodes.length, parent: parent.id, token, logProbability, sum, score, step, state };
      nodes.push(node);
      if (state === "alive") next.push(node);
      if (state === "finished") finished.push(node);
    });
    running = next;
    finished = finished.sort((a, b) => b.score - a.score).slice(0, beams);
    prune(nodes, running);
    yield { nodes: nodes.map((node) => ({ ...node })), best: (finished[0] ?? running[0]).id };
    if (finished.length === beams && isOver(model, { running, finished, step, maxLength, lengthPenalty })) return;
  }
}

/** The likeliest continuations of all beams together, two for each beam; of a forced place the forced one alone. */
async function continuations(model, encoded, switches, { nodes, running, beams, forced }) {
  const count = 2 * beams;
  const candidates = [];
  for (const parent of running) {
    const prefix = pathTo(nodes, parent.id);
    const { logits } = await model.decode(prefix, encoded, switches);
    // As in transformers: repetitions are judged by logits in the greedy search, by log probabilities elsewhere.
    const isGreedy = beams === 1;
    const logs = isGreedy
      ? logSoftmax(withoutRepetitions(model, logits, prefix))
      : withoutRepetitions(model, logSoftmax(logits), prefix);
    const given = forced[prefix.length - 1];
    const tokens = given === undefined ? largestOf(logs, count) : [given];
    for (const token of tokens) candidates.push({ parent, token, logProbability: logs[token] });
  }
  const sum = ({ parent, logProbability }) => parent.sum + logProbability;
  return candidates.sort((a, b) => sum(b) - sum(a)).slice(0, count);
}

/**
 * Whether no beam can still become better than the worst of the finished texts, as `generate` guesses it. A single
 * beam ends with its first end token, which makes it the greedy search.
 */
function isOver(model, { running, finished, step, maxLength, lengthPenalty }) {
  const { early_stopping: stopping = false } = model.generation;
  if (!running.length || finished.length === 1 || stopping === true) return true;
  const length = stopping === "never" && lengthPenalty > 0 ? maxLength : step;
  return running[0].sum / length ** lengthPenalty <= finished[finished.length - 1].score;
}

/** Give up what leads neither to a beam nor to a finished text. @param {BeamNode[]} nodes @param {BeamNode[]} running */
function prune(nodes, running) {
  const isNeeded = new Set([...running, ...nodes.filter((node) => node.state === "finished")].map((node) => node.id));
  for (const node of nodes.toReversed()) {
    if (!isNeeded.has(node.id)) node.state = "pruned";
    else if (node.parent !== null) isNeeded.add(node.parent);
  }
}

/**
 * The ids from the start token to a node of the tree.
 * @param {BeamNode[]} nodes @param {number} id @returns {number[]}
 */
export function pathTo(nodes, id) {
  const path = [];
  for (let node = nodes[id]; node; node = nodes[node.parent]) path.unshift(node.token);
  return path;
}
