// A model in the browser: text in, the logits of the next token out, and every number on the way.
//
// build.py has written the model as graphs for ONNX Runtime Web. Two kinds of models have the same two functions here,
// `encode` for the source and `decode` for the target so far:
//
//     Transformer   what it remembers of earlier tokens are their keys and values: they grow with the text
//     RNN           what it remembers is one state, of the same size for any text

import { Tokenizer } from "./tokenizer.js";

/**
 * A table of numbers of any number of axes, the last one running fastest.
 * @typedef {{dims: readonly number[], data: Float32Array}} Values
 */

/**
 * What a graph computed on the way, by name: "self.weights" is (layers, heads, query, key). graph.py has all names.
 * @typedef {Record<string, Values>} Trace
 */

/**
 * What is on. A row of heads for each layer.
 * @typedef {object} Switches
 * @property {boolean} positions Whether positions are added to embeddings.
 * @property {boolean} scaling Whether scores are divided by sqrt(d).
 * @property {boolean} causal Whether target tokens are hidden from those before them.
 * @property {boolean} cross Whether cross-attention adds anything.
 * @property {boolean[][]} encoderHeads Heads of the encoder's self-attention.
 * @property {boolean[][]} heads Heads of the decoder's self-attention.
 * @property {boolean[][]} crossHeads Heads of cross-attention.
 */

/**
 * A source that was read.
 * @typedef {object} Encoded
 * @property {Values} states (source, d_model).
 * @property {Trace} trace What the encoder computed on the way.
 * @property {Map<string, any>} memory What the decoder remembers of target tokens, by the ids up to them.
 * @property {any} [first] The first state of an RNN's decoder.
 */

/** @typedef {{logits: Float32Array, trace?: Trace}} Decoded logits: of the next token, (vocabulary). */

/**
 * Everything on.
 * @param {Model} model @returns {Switches}
 */
export function allOn({ layers, heads }) {
  const rows = (side) => Array.from({ length: layers[side] }, () => Array(heads[side]).fill(true));
  const ofHeads = { encoderHeads: rows("encoder"), heads: rows("decoder"), crossHeads: rows("decoder") };
  return { positions: true, scaling: true, causal: true, cross: true, ...ofHeads };
}

/**
 * The small files of a model: enough to show how a text is cut, before the large ones are there.
 * @param {string} folderUrl
 * @returns {Promise<{description: any, sourceTokenizer: Tokenizer, targetTokenizer: Tokenizer}>}
 */
export async function loadTokenizers(folderUrl) {
  const json = async (name) => (await found(`${folderUrl}/${name}`)).json();
  const [description, source] = await Promise.all([json("model.json"), json("tokenizer.json")]);
  const sourceTokenizer = Tokenizer.fromJSON(source);
  const isShared = !description.hasTargetTokenizer;
  const targetTokenizer = isShared ? sourceTokenizer : Tokenizer.fromJSON(await json("target_tokenizer.json"));
  return { description, sourceTokenizer, targetTokenizer };
}

/**
 * A model, ready to run.
 * @param {string} folderUrl The folder that build.py wrote the model to.
 * @param {any} ort What `loadRuntime` returns, or a promise of it: both are then loaded at the same time.
 * @param {(loaded: number, total: number) => void} [onProgress] Is told how many bytes have come.
 * @returns {Promise<Model>}
 */
export async function loadModel(folderUrl, ort, onProgress = () => {}) {
  const tokenizers = await loadTokenizers(folderUrl);
  const { kind, bytes } = tokenizers.description;
  let loaded = 0;
  const read = (name) => bytesOf(`${folderUrl}/${name}`, (count) => onProgress((loaded += count), bytes));
  const names = GRAPHS[kind];
  const [runtime, weights, ...graphs] = await Promise.all([ort, read("weights.bin"), ...names.map((n) => read(`${n}.onnx`))]);
  const settings = {
    executionProviders: ["wasm"],
    externalData: [{ path: "weights.bin", data: weights }],
    // Less work before the first token: a quarter less, and later tokens take as long as before.
    graphOptimizationLevel: "basic",
    extra: { session: { disable_prepacking: "1" } },
  };
  const starts = graphs.map((graph) => once(() => inTurn(() => runtime.InferenceSession.create(graph, settings))));
  const sessions = Object.fromEntries(names.map((name, index) => [name, starts[index]]));
  await Promise.all(starts.slice(0, 2).map((start) => start())); // the third when it is needed
  return new { transformer: Transformer, rnn: RNN }[kind](runtime, sessions, tokenizers);
}

const GRAPHS = { transformer: ["encoder", "quick_decoder", "decoder"], rnn: ["encoder", "decoder"] };

/** A function that does its work when it is first called, and never again. */
function once(work) {
  let result;
  return () => (result ??= work());
}

/** Work that waits for all before it: the runtime can take the weights of one session at a time. */
const inTurn = (work) => (turn = turn.catch(() => {}).then(work));
let turn = Promise.resolve();

/** @param {string} url @returns {Promise<Response>} */
async function found(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} could not be loaded: ${response.status} ${response.statusText}`);
  return response;
}

/** The bytes of a file. @param {string} url @param {(count: number) => void} onBytes */
async function bytesOf(url, onBytes) {
  const reader = (await found(url)).body.getReader();
  const chunks = [];
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    chunks.push(part.value);
    onBytes(part.value.length);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** What both kinds have in common. */
export class Model {
  constructor(ort, sessions, { description, sourceTokenizer, targetTokenizer }) {
    this.ort = ort;
    this.sessions = sessions;
    /** @type {string} */
    this.name = description.name;
    /** @type {"transformer" | "rnn"} */
    this.kind = description.kind;
    this.config = description.config; // config.json
    this.generation = description.generation; // generation_config.json
    this.sourceTokenizer = sourceTokenizer;
    this.targetTokenizer = targetTokenizer;
    /** @type {{encoder: number, decoder: number}} */
    this.layers = description.layers;
    /** @type {{encoder: number, decoder: number}} */
    this.heads = description.heads;
    /** @type {string[]} The names of the switches that it has. */
    this.switches = description.switches;
    /** @type {number} What a target begins with. */
    this.startId = description.startId;
    /** @type {number} What a target ends with. */
    this.endId = description.endId;
    /** @type {number} How many tokens to write at most. */
    this.maxLength = description.maxLength;
  }

  /** @param {number[]} ids */
  idTensor(ids) {
    return new this.ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
  }

  /** @param {ArrayLike<number>} values @param {number[]} dims */
  tensor(values, dims) {
    return new this.ort.Tensor("float32", Float32Array.from(values), dims);
  }

  /** Run a graph. @param {string} name @param {Record<string, any>} inputs @returns {Promise<any>} */
  async run(name, inputs) {
    return (await this.sessions[name]()).run(inputs);
  }
}

/** Results of a graph as plain numbers. @param {Record<string, any>} results @param {string[]} names */
function traceOf(results, names) {
  return Object.fromEntries(names.map((name) => [name, { dims: results[name].dims, data: results[name].data }]));
}

/** All results but these. */
const without = (results, ...names) => Object.keys(results).filter((name) => !names.includes(name));

/** Keep no more than this number of things, the oldest go. */
function remember(memory, key, value, most) {
  memory.set(key, value);
  if (memory.size > most) memory.delete(memory.keys().next().value);
  return value;
}

export class Transformer extends Model {
  static KEPT = 40; // prefixes with keys and values: enough for a search with many beams

  /** @param {boolean} isOn */
  flag(isOn) {
    return this.tensor([isOn ? 1 : 0], []);
  }

  /** @param {boolean[][]} rows */
  headSwitches(rows) {
    return this.tensor(rows.flat().map(Number), [rows.length, rows[0].length]);
  }

  /** @param {number[]} ids @param {Switches} switches @returns {Promise<Encoded>} */
  async encode(ids, switches) {
    const results = await this.run("encoder", {
      input_ids: this.idTensor(ids),
      positions: this.flag(switches.positions),
      scaling: this.flag(switches.scaling),
      heads: this.headSwitches(switches.encoderHeads),
    });
    return { states: results.states, trace: traceOf(results, without(results, "states")), memory: new Map() };
  }

  /**
   * @param {number[]} ids The target so far, beginning with the start token.
   * @param {Encoded} encoded @param {Switches} switches
   * @param {{trace?: boolean}} [options] trace: whether to return all numbers, of all tokens; it takes longer.
   * @returns {Promise<Decoded>}
   */
  async decode(ids, encoded, switches, { trace = false } = {}) {
    if (trace) {
      const results = await this.run("decoder", this.decoderInputs(ids, encoded, switches, this.emptyPast()));
      return { logits: results.logits.data, trace: traceOf(results, without(results, "logits")) };
    }
    const settings = JSON.stringify(switches);
    const key = (length) => `${ids.slice(0, length).join(" ")} ${settings}`;
    const known = encoded.memory.get(key(ids.length));
    if (known) return { logits: known.logits };
    // Without the mask earlier tokens look at later ones, and what they were before is no longer true.
    let length = switches.causal ? ids.length - 1 : 0;
    while (length > 0 && !encoded.memory.has(key(length))) length--;
    const past = length > 0 ? encoded.memory.get(key(length)).past : this.emptyPast();
    const results = await this.run("quick_decoder", this.decoderInputs(ids.slice(length), encoded, switches, past));
    const logits = results.logits.data;
    const next = { past_keys: results["self.key"], past_values: results["self.value"] };
    remember(encoded.memory, key(ids.length), { logits, past: next }, Transformer.KEPT);
    return { logits };
  }

  decoderInputs(ids, encoded, switches, past) {
    return {
      input_ids: this.idTensor(ids),
      source: encoded.states,
      positions: this.flag(switches.positions),
      scaling: this.flag(switches.scaling),
      causal: this.flag(switches.causal),
      cross: this.flag(switches.cross),
      heads: this.headSwitches(switches.heads),
      cross_heads: this.headSwitches(switches.crossHeads),
      ...past,
    };
  }

  /** Keys and values before the first token: none. */
  emptyPast() {
    const { decoder_layers: layers, decoder_attention_heads: heads, d_model: width } = this.config;
    const none = () => this.tensor([], [layers, heads, 0, width / heads]);
    return { past_keys: none(), past_values: none() };
  }
}

export class RNN extends Model {
  static KEPT = 1000; // prefixes with their state

  /** @param {number[]} ids @returns {Promise<Encoded>} */
  async encode(ids) {
    const results = await this.run("encoder", { input_ids: this.idTensor(ids) });
    const trace = traceOf(results, without(results, "states", "state"));
    return { states: results.states, first: results.state, trace, memory: new Map() };
  }

  /**
   * @param {number[]} ids The target so far, beginning with the start token.
   * @param {Encoded} encoded @param {Switches} _switches There are none.
   * @param {{trace?: boolean}} [options] trace: whether to return "cross.weights", if there is attention.
   * @returns {Promise<Decoded>}
   */
  async decode(ids, encoded, _switches, { trace = false } = {}) {
    const steps = [];
    for (const [index, id] of ids.entries()) {
      const state = index ? steps[index - 1].new_state : encoded.first;
      const key = ids.slice(0, index + 1).join(" ");
      steps.push(encoded.memory.get(key) ?? (await this.step(id, state, encoded, key)));
    }
    const { data: logits } = steps[steps.length - 1].logits;
    return trace ? { logits, trace: weightsOf(steps) } : { logits };
  }

  async step(id, state, encoded, key) {
    const results = await this.run("decoder", { input_ids: this.idTensor([id]), source: encoded.states, state });
    return remember(encoded.memory, key, results, RNN.KEPT);
  }
}

/** The attention weights of all steps as one table, (1, 1, target, source). */
function weightsOf(steps) {
  const rows = steps.map((step) => step["cross.weights"]).filter(Boolean);
  if (!rows.length) return {};
  const length = rows[0].data.length;
  const data = new Float32Array(rows.length * length);
  rows.forEach((row, index) => data.set(row.data, index * length));
  return { "cross.weights": { dims: [1, 1, rows.length, length], data } };
}
