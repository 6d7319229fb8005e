// Run a model on a text, step by step, and keep what the views ask for.

import { allOn } from "./model.js";
import { beamSearch, greedy, pathTo, sample, softmax } from "./search.js";
import { readHead } from "./state.js";

export const LONGEST_TEXT = 48; // tokens of a source: more would not be seen anyway
const LONGEST_TARGET = 64; // less where the model itself ends earlier

/**
 * @typedef {object} Word A token of the target.
 * @property {number} id
 * @property {string} piece
 * @property {number} probability What the model gave it.
 */

/**
 * Turn the names of what is off into what a model takes.
 * @param {any} model
 * @param {string[]} off
 */
export function switchesOf(model, off) {
  const switches = allOn(model);
  const tables = { enc: "encoderHeads", self: "heads", cross: "crossHeads" };
  for (const name of off) {
    const head = readHead(name);
    if (!head) switches[name] = false;
    else if (switches[tables[head.kind]]?.[head.layer]?.[head.head] !== undefined)
      switches[tables[head.kind]][head.layer][head.head] = false;
  }
  return switches;
}

/** What of a state changes what is computed: two states with the same text of it have the same run. */
export const runKey = (model, state) =>
  JSON.stringify([model, state.text, state.method, state.off, state.forced, ...settingsOf(state)]);

const settingsOf = ({ method, temperature, topP, seed, beams, penalty }) =>
  ({
    greedy: [],
    sample: [temperature, topP, seed],
    beam: [beams, penalty],
  })[method];

/** One text through one model with one setting. */
export class Run {
  /**
   * @param {any} model From model.js.
   * @param {any} source What the tokenizer's `encode` gave.
   * @param {import("./state.js").State} state
   */
  constructor(model, source, state) {
    const forced = state.forced.filter((id) => id < model.targetTokenizer.vocabularySize); // a link may ask for others
    Object.assign(this, { model, source, state: { ...state, forced } });
    this.key = runKey(model.name, state);
    this.switches = switchesOf(model, state.off);
    /** @type {Word[]} */
    this.words = [];
    /** @type {{nodes: any[], best: number}[]} */
    this.trees = []; // of a beam search, after each step
    this.done = false;
    this.encoded = null;
    this.traces = new Map();
  }

  /** Compute it all. @param {() => boolean} goOn Called after each step; false stops. */
  async compute(goOn) {
    this.encoded = await this.model.encode(this.source.ids, this.switches);
    if (!goOn()) return;
    for await (const step of this.search()) {
      this.take(step);
      if (!goOn()) return;
      await new Promise((resolve) => setTimeout(resolve)); // let the page draw
    }
    const last = this.trees.at(-1);
    if (last) this.words = await this.weigh(pathTo(last.nodes, last.best).slice(1));
    this.done = true;
    goOn();
  }

  search() {
    const { method, temperature, topP, seed, beams, penalty, forced } = this.state;
    const common = { maxLength: Math.min(LONGEST_TARGET, this.model.maxLength), forced };
    const given = [this.model, this.encoded, this.switches];
    if (method === "beam") return beamSearch(...given, { ...common, beams, lengthPenalty: penalty });
    if (method === "sample") return sample(...given, { ...common, temperature, topP, seed });
    return greedy(...given, common);
  }

  take(step) {
    if (this.state.method === "beam") {
      this.trees.push(step);
    } else {
      this.words.push({ id: step.chosen, piece: this.piece(step.chosen), probability: step.probability });
    }
  }

  piece(id) {
    return this.model.targetTokenizer.piece(id);
  }

  /** Give tokens the probabilities that the model has for them. @param {number[]} ids @returns {Promise<Word[]>} */
  async weigh(ids) {
    const words = [];
    for (const [place, id] of ids.entries()) {
      const { logits } = await this.traceAt(place + 1, ids);
      words.push({ id, piece: this.piece(id), probability: softmax(logits)[id] });
    }
    return words;
  }

  /** What the decoder has read before it writes a word, from 1. @param {number} number @returns {number[]} */
  prefix(number, ids = this.words.map((word) => word.id)) {
    return [this.model.startId, ...ids.slice(0, number - 1)];
  }

  /**
   * What the decoder computes for a word, from 1.
   * @param {number} number
   * @returns {Promise<{logits: Float32Array, trace: any}>} A word is computed once.
   */
  async traceAt(number, ids = undefined) {
    const prefix = this.prefix(number, ids);
    const key = prefix.join();
    if (!this.traces.has(key)) {
      const decoded = this.model.decode(prefix, this.encoded, this.switches, { trace: true });
      this.traces.set(key, decoded);
      this.traces.set(`${key} done`, await decoded);
    }
    return this.traces.get(key);
  }

  /** The same, if it is there already. @param {number} number */
  peek(number) {
    return this.traces.get(`${this.prefix(number).join()} done`) ?? null;
  }

  /** The target as a text. */
  get text() {
    return this.model.targetTokenizer.decode(this.words.map((word) => word.id));
  }
}
