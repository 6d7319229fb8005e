// The work behind the page: what is loaded, what is computed, and what is given up because something else was asked.

import { about, listModels, loadTokenizer, loadWholeModel } from "./loading.js";
import { LONGEST_TEXT, Run, runKey } from "./run.js";
import { splitStep, listSteps } from "./state.js";

// Models of letters, in the order of history.
const RIVALS = ["rnn-fixed", "rnn-additive", "g2p-en", "g2p-en-distilled"];

/** Something that the reader should know; `values` are those of the text. */
export class Complaint extends Error {
  constructor(key, values) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

export class Work {
  /**
   * @param {() => void} draw Called when there is something new to see.
   * @param {(key: string, values?: Object<string, any>) => void} say Is told what goes on.
   */
  constructor(draw, say) {
    Object.assign(this, { draw, say });
    /** @type {string[]} The names of the models that there are. */
    this.models = [];
    this.tokenizer = null;
    this.model = null;
    this.source = null;
    /** @type {Run | null} */
    this.run = null;
    /** @type {Run | null} The run with nothing switched off and nothing forced. */
    this.before = null;
    this.compared = new Map();
    this.turn = 0; // counts what was asked: what is older stops
  }

  /** Whose turn it is: the model that was asked for, or the first one. @param {import("./state.js").State} state */
  nameOf(state) {
    return this.models.includes(state.model) ? state.model : (this.models[0] ?? "");
  }

  /** @param {import("./state.js").State} state */
  textOf(state) {
    return state.text || about(this.nameOf(state)).examples[0];
  }

  /**
   * Load and compute what a state needs.
   * @param {import("./state.js").State} state
   * @returns {Promise<boolean>} Whether nothing else has been asked since.
   * @throws {Complaint | Error}
   */
  async update(state) {
    const turn = ++this.turn;
    const goOn = () => turn === this.turn;
    try {
      await this.load(state, goOn);
      if (goOn()) await this.compute({ ...state, text: this.textOf(state) }, goOn);
    } catch (error) {
      if (goOn()) throw error;
    }
    return goOn();
  }

  async load(state, goOn) {
    if (!this.models.length) this.models = (await listModels()).map((model) => model.name);
    const name = this.nameOf(state);
    const text = this.textOf(state);
    if (this.model?.name !== name) this.model = null;
    const tokenizer = await loadTokenizer(name);
    if (!goOn()) return;
    this.tokenizer = tokenizer;
    const encoding = tokenizer.encode(text);
    this.source = { ...encoding, text, joins: encoding.steps.words.map((word) => tokenizer.joins(word)) };
    this.draw(); // the tokens, long before the model is there
    const count = this.source.ids.length;
    if (count > LONGEST_TEXT) throw new Complaint("error.long", { count, most: LONGEST_TEXT });
    if (this.model) return;
    this.say("loading.model", { name, share: 0 });
    const model = await loadWholeModel(name, (loaded, total) => {
      if (goOn()) this.say("loading.model", { name, share: Math.min(99, Math.round((100 * loaded) / total)) });
    });
    if (goOn()) this.model = model;
  }

  async compute(state, goOn) {
    const isPlain = !state.off.length && !state.forced.length;
    this.run = await this.runOnce(this.run, state, goOn);
    if (!goOn()) return;
    this.before = isPlain ? this.run : await this.runOnce(this.before, { ...state, off: [], forced: [] }, goOn);
    if (goOn()) await this.lookAt(this.wordNumber(state.step));
    if (!goOn()) return;
    this.draw();
    await this.compare(state, goOn);
    if (goOn()) this.say("");
  }

  /** Take a run that is finished with the same settings, or make a new one. */
  async runOnce(old, state, goOn) {
    const { model, source } = this;
    if (old?.key === runKey(model.name, state) && old.done) return old;
    const run = new Run(model, source, state);
    // The first run of a text is shown as it grows; a later one only when it is finished, in place of the one before.
    const isFirst = !(this.run?.done && this.run.source.text === state.text && this.run.model === model);
    this.say("computing");
    await run.compute(() => {
      if (!goOn()) return false;
      if (isFirst) {
        this.run = run;
        this.draw();
      }
      return true;
    });
    return run;
  }

  /** Compute what the decoder does for a word. @param {number} number From 1. */
  async lookAt(number) {
    if (this.run.words.length && !this.run.peek(number)) await this.run.traceAt(number);
  }

  /** The word of the decoder that a step shows, from 1: its own, or the last one. @param {string} step */
  wordNumber(step) {
    const [name, number] = splitStep(step);
    const count = this.run?.words.length ?? 0;
    return name === "dec" ? Math.min(number, count) : count;
  }

  /** A run, if it is one of this state's model and text. @param {Run | null} run */
  fitting(run, state) {
    return run?.source.text === this.textOf(state) && run.model.name === this.nameOf(state) ? run : null;
  }

  /** The steps that there are so far. @param {import("./state.js").State} state */
  stepsOf(state) {
    const isTransformer = this.model?.kind !== "rnn";
    const layers = isTransformer ? (this.model?.layers.encoder ?? 0) : 0;
    const words = this.fitting(this.run, state)?.words.length ?? 0;
    return listSteps({ layers, words, embeds: isTransformer });
  }

  /** The models that a model is compared with, itself among them. @param {string} name */
  rivalsOf(name) {
    return about(name).letters ? RIVALS.filter((rival) => this.models.includes(rival)) : [];
  }

  /** Let the rivals of the comparison work on the same word. */
  async compare(state, goOn) {
    for (const name of this.rivalsOf(this.model.name)) {
      if (this.compared.get(name)?.text === state.text) continue;
      const column = { text: state.text, run: null, trace: null, why: "" };
      try {
        const model = await loadWholeModel(name);
        const source = { ...model.sourceTokenizer.encode(state.text), text: state.text };
        column.run = new Run(model, source, { ...state, method: "greedy", off: [], forced: [] });
        await column.run.compute(goOn);
        if (!goOn()) return;
        const count = column.run.words.length;
        if (count) column.trace = (await column.run.traceAt(count)).trace;
      } catch (error) {
        column.why = error.message;
      }
      this.compared.set(name, column);
      if (goOn()) this.draw();
    }
  }
}
