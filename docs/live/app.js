// The page: its state, its address, and what happens when something is pressed. views/ draws, run.js computes.

import {about, listModels, loadTokenizer, loadWholeModel} from "./loading.js";
import {LONGEST_TEXT, Run, runKey} from "./run.js";
import {listSteps, readAddress, splitStep, writeAddress} from "./state.js";
import {translate} from "./texts.js";
import {Tour, withStop} from "./tour.js";
import {drawBeams} from "./views/beams.js";
import {drawCompare} from "./views/compare.js";
import {drawDecoding, drawSwitches, writeOutput} from "./views/controls.js";
import {make, replace} from "./views/dom.js";
import {drawHeads} from "./views/heads.js";
import {drawStage} from "./views/stage.js";
import {drawTimeline} from "./views/timeline.js";

/**
 * What a view gets.
 * @typedef {object} Page
 * @property {import("./state.js").State} state
 * @property {(key: string, values?: Object<string, any>) => string} t The text of a key, in the page's language.
 * @property {(change: Partial<import("./state.js").State>, options?: {replace?: boolean}) => void} go Change the state.
 * @property {any} model Null while it is loaded.
 * @property {any} source What the tokenizer gave for the text; null while it is loaded.
 * @property {number} vocabularySize
 * @property {string} text
 * @property {string} target The language of what is written.
 * @property {Run | null} run
 * @property {Run | null} before The run with nothing switched off and nothing forced, where it is another one.
 */

const PAUSE = 1600; // ms of a step while the page plays
const RIVALS = ["rnn-fixed", "rnn-additive", "g2p-en", "g2p-en-distilled"]; // of the comparison

const find = id => document.getElementById(id);
const system = matchMedia("(prefers-color-scheme: dark)");

class App {
  constructor() {
    this.state = withStop(readAddress(location.hash.slice(1)));
    this.models = [];
    /** @type {{tokenizer: any, model: any, source: any, run: Run | null, before: Run | null, rivals: Map<string, any>}} */
    this.held = {tokenizer: null, model: null, source: null, run: null, before: null, rivals: new Map()};
    this.turn = 0; // counts what is computed: what is older stops
    this.timer = 0;
    this.tour = new Tour(this);
  }

  get language() {
    return this.state.lang || (navigator.language.startsWith("zh") ? "zh" : "en");
  }

  get name() {
    return this.models.includes(this.state.model) ? this.state.model : this.models[0] ?? "";
  }

  get text() {
    return this.state.text || about(this.name).examples[0];
  }

  t = (key, values = {}) => translate(this.language, key, values);

  /** @type {Page["go"]} */
  go = (change, {replace: quietly = false} = {}) => {
    const [before, now] = [this.state.step, change.step ?? this.state.step], [kind] = splitStep(now);
    const isOther = kind !== splitStep(before)[0], isOtherWord = kind === "dec" && now !== before;
    this.state = {...this.state, ...(isOther ? {open: ""} : {}), ...(isOther || isOtherWord ? {query: -1, key: -1} : {}), ...change};
    const address = `#${writeAddress(this.state)}`;
    if (address !== (location.hash || "#")) history[quietly ? "replaceState" : "pushState"](null, "", address);
    this.update();
  };

  /** Bring everything in line with the state. */
  async update() {
    const turn = ++this.turn, goOn = () => turn === this.turn;
    find("main").setAttribute("aria-busy", "true");
    this.draw();
    try {
      await this.load(goOn);
      if (goOn()) await this.compute(goOn);
    } catch (error) {
      if (goOn()) this.fail(error);
    }
    if (goOn()) find("main").setAttribute("aria-busy", "false");
  }

  async load(goOn) {
    if (!this.models.length) this.models = (await listModels()).map(model => model.name);
    const name = this.name, text = this.text, {held} = this;
    if (held.model?.name !== name) held.model = null;
    held.tokenizer = await loadTokenizer(name);
    if (!goOn()) return;
    held.source = {...held.tokenizer.encode(text), text};
    this.complain(held.source.ids.length > LONGEST_TEXT ? this.t("error.long", {count: held.source.ids.length, most: LONGEST_TEXT}) : "");
    this.draw();
    if (held.model) return;
    this.say("loading.model", {name, share: 0});
    const model = await loadWholeModel(name, (loaded, total) => {
      if (goOn()) this.say("loading.model", {name, share: Math.min(99, Math.round(100 * loaded / total))});
    });
    if (goOn()) held.model = model;
  }

  async compute(goOn) {
    const {held, state} = this, {source, model} = held;
    if (source.ids.length > LONGEST_TEXT) {
      held.run = held.before = null;
      this.say("");
      return;
    }
    const settings = {...state, text: this.text};
    held.run = await this.runOnce(held.run, model, settings, goOn);
    if (!goOn()) return;
    if (state.off.length || state.forced.length) {
      held.before = await this.runOnce(held.before, model, {...settings, off: [], forced: []}, goOn);
    } else {
      held.before = held.run;
    }
    if (goOn()) await this.lookAt(goOn);
    if (goOn()) await this.compare(goOn);
    if (goOn()) this.say("");
  }

  /** Take a run that is finished with the same settings, or make a new one. */
  async runOnce(old, model, settings, goOn) {
    if (old?.key === runKey(model.name, settings) && old.done) return old;
    const run = new Run(model, this.held.source, settings);
    // The first run of a text is shown as it grows; a later one only when it is finished, in place of the one before.
    const isFirst = !(this.held.run?.done && this.held.run.source.text === settings.text && this.held.run.model === model);
    this.say("computing");
    await run.compute(() => {
      if (!goOn()) return false;
      if (isFirst) {
        this.held.run = run;
        this.draw();
      }
      return true;
    });
    return run;
  }

  /** Compute what the step shows of the decoder. */
  async lookAt(goOn) {
    const {run} = this.held;
    if (!run.words.length) return;
    const number = this.wordNumber;
    if (!run.peek(number)) await run.traceAt(number);
    if (goOn()) this.draw();
  }

  /** Let the rivals of the comparison work on the same word. */
  async compare(goOn) {
    for (const name of this.rivals) {
      const held = this.held.rivals.get(name);
      if (held?.run?.source.text === this.text) continue;
      try {
        const model = await loadWholeModel(name), source = {...model.sourceTokenizer.encode(this.text), text: this.text};
        const run = new Run(model, source, {...this.state, text: this.text, method: "greedy", off: [], forced: []});
        await run.compute(goOn);
        const trace = run.words.length && goOn() ? (await run.traceAt(run.words.length)).trace : null;
        if (!goOn()) return;
        this.held.rivals.set(name, {run, trace, error: ""});
      } catch (error) {
        this.held.rivals.set(name, {run: null, trace: null, error: this.t("error.load", {what: name, why: error.message})});
      }
      this.draw();
    }
  }

  get rivals() {
    return about(this.name).letters ? RIVALS.filter(name => this.models.includes(name)) : [];
  }

  get steps() {
    const {run, model} = this.held, trace = run?.encoded?.trace;
    const config = model?.kind === "rnn" ? 0 : model?.layers.encoder ?? 0;
    return listSteps({layers: trace?.["self.weights"]?.dims[0] ?? config, words: run?.words.length ?? 0, embeds: model?.kind !== "rnn"});
  }

  /** The step that is shown: the one of the address, or the nearest that there is. */
  get step() {
    const {step} = this.state, {steps} = this;
    if (steps.includes(step)) return step;
    return this.held.run?.done ? "end" : step;
  }

  /** The word of the decoder that is shown, from 1: that of the step, or the last one. */
  get wordNumber() {
    const [name, number] = splitStep(this.step), count = this.held.run?.words.length ?? 0;
    return name === "dec" ? Math.min(number, count) : count;
  }

  /** @returns {Page} */
  get page() {
    const {state, t, go, text, held} = this, {tokenizer, model, source, run, before} = held;
    const fresh = source?.text === text ? source : null;
    return {state, t, go, model, source: fresh, text, run: run?.source.text === text && run.model.name === this.name ? run : null, before,
      vocabularySize: tokenizer?.vocabularySize ?? 0, target: about(this.name).target};
  }

  draw() {
    this.drawFrame();
    const {page} = this, {step, wordNumber} = this, {run} = page;
    const decoded = run?.words.length ? run.peek(wordNumber) : null;
    replace(find("timeline"), ...drawTimeline(page, this.steps, step));
    replace(find("stage"), ...drawStage(page, step, decoded));
    if (!document.querySelector("#decoding input[type=range]:active")) replace(find("decoding"), drawDecoding(page));
    replace(find("switches"), page.model && drawSwitches(page));
    writeOutput(page, find("output"));
    find("beams").hidden = !run?.trees.length;
    if (run?.trees.length) replace(find("tree"), drawBeams(page, run.done && splitStep(step)[0] === "dec" ? wordNumber : run.trees.length));
    const encoder = run?.encoded?.trace;
    find("all-heads").hidden = !encoder?.["self.weights"];
    if (encoder?.["self.weights"]) replace(find("heads"), drawHeads(page, encoder, decoded?.trace));
    find("comparison").hidden = this.rivals.length < 2;
    if (this.rivals.length > 1) this.drawComparison(page);
    this.centreStep();
    this.tour.draw();
  }

  drawComparison(page) {
    replace(find("compare"), drawCompare(page, this.rivals.map(name => {
      const held = this.held.rivals.get(name), fresh = held && (!held.run || held.run.source.text === this.text);
      return {name, kind: name.startsWith("g2p") ? "transformer" : name, ...(fresh ? held : {run: null, trace: null, error: ""})};
    })));
  }

  /** Draw what is the same in each step: language, theme, the form. */
  drawFrame() {
    const {t, language, state} = this, root = document.documentElement;
    root.lang = language === "zh" ? "zh-CN" : "en";
    root.dataset.theme = state.theme || (system.matches ? "dark" : "light");
    document.title = t("title");
    for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
    for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
    find("theme").textContent = t(root.dataset.theme === "dark" ? "theme.light" : "theme.dark");
    find("play").textContent = t(this.timer ? "pause" : "play");
    find("play").setAttribute("aria-pressed", String(this.timer > 0));
    const {steps, step} = this, place = steps.indexOf(step);
    find("back").disabled = place <= 0;
    find("forward").disabled = place < 0 || place >= steps.length - 1;
    const known = about(this.name), input = find("text");
    const select = find("model"), names = this.models.map(name => t(`model.${name}`, {name}));
    if (select.dataset.names !== names.join()) {
      select.replaceChildren(...this.models.map((name, i) => make("option", {value: name}, names[i])));
      select.dataset.names = names.join();
    }
    select.value = this.name;
    if (document.activeElement !== input) input.value = this.text;
    input.lang = known.source;
    replace(find("examples"), make("span", {}, t("ask.examples")), ...known.examples.map(text => make("button", {
      type: "button", class: "chip", lang: known.source, "aria-pressed": text === this.text, dataset: {key: `example-${text}`},
      onclick: () => this.ask(text),
    }, text)));
  }

  /** Keep the chip of the step in view, without scrolling the page. */
  centreStep() {
    const box = find("timeline"), chip = box.querySelector("[aria-current]");
    if (chip) box.scrollLeft = chip.offsetLeft - (box.clientWidth - chip.offsetWidth) / 2;
  }

  /** Work on another text, from its beginning unless the step is one that each text has. */
  ask(text) {
    find("text").value = text;
    if (!text.trim()) {
      this.complain(this.t("error.empty"));
      return;
    }
    this.stop();
    const stays = ["tokens", "embed", "enc"].includes(splitStep(this.step)[0]) || this.step === "end";
    this.go({text: text.trim(), forced: [], head: null, query: -1, key: -1, step: stays ? this.step : "dec.1"});
  }

  /** Go some steps on, or back. @param {number} count */
  move(count) {
    const {steps, step} = this, next = steps[steps.indexOf(step) + count];
    if (next) this.go({step: next, head: null}, {replace: this.timer > 0});
    else this.stop();
  }

  play() {
    if (this.timer) return this.stop();
    if (this.step === "end") this.go({step: "tokens", head: null});
    this.timer = setInterval(() => this.move(1), PAUSE);
    this.drawFrame();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.drawFrame();
  }

  say(key, values = {}) {
    find("status").textContent = key ? this.t(key, values) : "";
    find("status").classList.toggle("busy", Boolean(key));
  }

  complain(text) {
    find("error").hidden = !text;
    find("error").textContent = text;
  }

  fail(error) {
    this.say("");
    const why = error.message;
    const kind = typeof WebAssembly === "undefined" ? "wasm" : /\b404\b/.test(why) ? "missing" : /fetch|import/i.test(why) ? "network" : "any";
    this.complain(this.t(`error.${kind}`, {why}));
    console.warn(error);
  }

  listen() {
    find("language").addEventListener("click", () => this.go({lang: this.language === "zh" ? "en" : "zh"}));
    find("theme").addEventListener("click", () => this.go({theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark"}));
    find("start-tour").addEventListener("click", () => this.tour.start());
    find("ask").addEventListener("submit", event => {
      event.preventDefault();
      this.ask(find("text").value);
    });
    find("model").addEventListener("change", event => this.go({model: event.target.value, text: "", forced: [], off: [], head: null, step: "tokens"}));
    for (const [id, count] of [["back", -1], ["forward", 1]]) find(id).addEventListener("click", () => {
      this.stop();
      this.move(count);
    });
    find("play").addEventListener("click", () => this.play());
    for (const event of ["popstate", "hashchange"]) addEventListener(event, () => this.arrive());
    system.addEventListener("change", () => this.draw());
    document.addEventListener("keydown", event => this.press(event));
  }

  /** Show what the address says, after a link or the browser's back button. */
  arrive() {
    const state = withStop(readAddress(location.hash.slice(1)));
    if (writeAddress(state) === writeAddress(this.state)) return;
    this.state = state;
    this.update();
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    if (this.tour.press(event)) return;
    if (event.target.closest?.("input, select, textarea, canvas, .scroller")) return;
    const count = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (count) {
      event.preventDefault();
      this.stop();
      this.move(count);
    } else if (event.key === "Escape" && this.state.head) {
      this.go({head: null, key: -1});
    }
  }
}

const app = new App();
app.listen();
app.update();
