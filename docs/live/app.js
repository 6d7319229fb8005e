// The page: its state, its address, and what happens when something is pressed. views/ draws, work.js computes.

import { about } from "./loading.js";
import { readAddress, splitStep, writeAddress } from "./state.js";
import { translate } from "./texts.js";
import { Tour, withStop } from "./tour.js";
import { drawBeams } from "./views/beams.js";
import { drawCompare } from "./views/compare.js";
import { drawDecoding, drawSwitches, writeOutput } from "./views/controls.js";
import { replace } from "./views/dom.js";
import { drawFrame } from "./views/frame.js";
import { drawHeads } from "./views/heads.js";
import { drawStage } from "./views/stage.js";
import { drawTimeline, nameStep } from "./views/timeline.js";
import { Complaint, Work } from "./work.js";

/**
 * What a view gets.
 * @typedef {object} Page
 * @property {import("./state.js").State} state
 * @property {(key: string, values?: Object<string, any>) => string} t The text of a key, in the page's language.
 * @property {(change: Partial<import("./state.js").State>, options?: {replace?: boolean}) => void} go
 *     Change the state.
 * @property {string} name Of the model.
 * @property {any} model Null while it is loaded.
 * @property {any} source What the tokenizer gave for the text; null while it is loaded.
 * @property {any[]} joins How each word of the text was put together from characters.
 * @property {number} vocabularySize
 * @property {string} text
 * @property {string} target The language of what is written.
 * @property {import("./run.js").Run | null} run
 * @property {import("./run.js").Run | null} before The run with nothing switched off and nothing forced.
 */

const PAUSE = 1600; // ms of a step while the page plays

const find = (id) => document.getElementById(id);
const system = matchMedia("(prefers-color-scheme: dark)");

class App {
  constructor() {
    this.state = withStop(readAddress(location.hash.slice(1)));
    this.work = new Work(
      () => this.draw(),
      (key, values) => this.say(key, values),
    );
    this.timer = 0;
    this.tour = new Tour(this);
  }

  get language() {
    return this.state.lang || (navigator.language.startsWith("zh") ? "zh" : "en");
  }

  t = (key, values = {}) => translate(this.language, key, values);

  /** @type {Page["go"]} */
  go = (change, { replace: quietly = false } = {}) => {
    const before = this.state.step;
    const now = change.step ?? before;
    const [kind] = splitStep(now);
    const isOther = kind !== splitStep(before)[0];
    const isOtherWord = kind === "dec" && now !== before;
    const forgotten = { ...(isOther && { open: "" }), ...((isOther || isOtherWord) && { query: -1, key: -1 }) };
    this.state = { ...this.state, ...forgotten, ...change };
    const address = `#${writeAddress(this.state)}`;
    if (address !== (location.hash || "#")) history[quietly ? "replaceState" : "pushState"](null, "", address);
    this.update();
  };

  /** Bring everything in line with the state. */
  async update() {
    find("main").setAttribute("aria-busy", "true");
    this.complain("");
    let isLast = true;
    try {
      this.draw();
      isLast = await this.work.update(this.state);
    } catch (error) {
      this.fail(error);
    }
    if (isLast) find("main").setAttribute("aria-busy", "false");
  }

  /** The step that is shown: the one of the address, or the nearest that there is. */
  get step() {
    const { step } = this.state;
    const { work, state } = this;
    return !work.stepsOf(state).includes(step) && work.fitting(work.run, state)?.done ? "end" : step;
  }

  /** @returns {Page} */
  get page() {
    const { state, t, go, work } = this;
    const name = work.nameOf(state);
    const text = work.textOf(state);
    return {
      ...{ state, t, go, name, text },
      model: work.model,
      source: work.source?.text === text ? work.source : null,
      joins: work.source?.joins ?? [],
      run: work.fitting(work.run, state),
      before: work.fitting(work.before, state),
      vocabularySize: work.tokenizer?.vocabularySize ?? 0,
      target: about(name).target,
    };
  }

  draw() {
    const { page, step, work } = this;
    const { run } = page;
    const steps = work.stepsOf(this.state);
    const number = work.wordNumber(step);
    const decoded = run?.words.length ? run.peek(number) : null;
    drawFrame(page, {
      ...{ step, language: this.language, steps, models: work.models },
      isDark: page.state.theme ? page.state.theme === "dark" : system.matches,
      isPlaying: this.timer > 0,
      ask: (text) => this.ask(text),
    });
    replace(find("timeline"), ...drawTimeline(page, steps, step));
    replace(find("stage"), ...drawStage(page, step, decoded));
    // What is being dragged stays.
    if (!document.querySelector("#decoding input[type=range]:active")) replace(find("decoding"), drawDecoding(page));
    replace(find("switches"), page.model && drawSwitches(page));
    writeOutput(page, find("output"));
    // For those who hear the page: which step it is now.
    const spoken = nameStep(page, step);
    if (find("spoken").textContent !== spoken) find("spoken").textContent = spoken;
    this.drawMore(page, run?.encoded?.trace, decoded?.trace);
    this.centreStep();
    this.tour.draw();
  }

  /** Draw what is below the stage, where there is something to show. */
  drawMore(page, encoder, decoder) {
    const { run, name } = page;
    const trees = run?.trees.length ?? 0;
    const isWord = run?.done && splitStep(this.step)[0] === "dec";
    this.show("beams", trees > 0, () => drawBeams(page, isWord ? this.work.wordNumber(this.step) : trees));
    this.show("all-heads", Boolean(encoder?.["self.weights"]), () => drawHeads(page, encoder, decoder));
    const rivals = this.work.rivalsOf(name);
    this.show("comparison", rivals.length > 1, () =>
      drawCompare(
        page,
        rivals.map((rival) => {
          const column = this.work.compared.get(rival);
          return { name: rival, ...(column?.text === page.text ? column : { run: null, trace: null, why: "" }) };
        }),
      ),
    );
  }

  /** Show a part of the page, or hide it. */
  show(id, isShown, draw) {
    find(id).hidden = !isShown;
    if (isShown) replace(find(id).querySelector(".card-body"), draw());
  }

  /** Keep the step in view, among the chips and in the tree, without scrolling the page. */
  centreStep() {
    const box = find("timeline");
    const chip = box.querySelector("[aria-current]");
    if (chip) box.scrollLeft = chip.offsetLeft - (box.clientWidth - chip.offsetWidth) / 2;
    const tree = find("tree").querySelector(".scroller");
    if (tree && splitStep(this.step)[0] === "dec") tree.scrollLeft = tree.scrollWidth; // what has just grown
  }

  /** Work on another text, at the same step if each text has it. */
  ask(text) {
    find("text").value = text;
    if (!text.trim()) return this.complain(this.t("error.empty"));
    this.stop();
    const step = splitStep(this.step)[0] === "dec" ? "dec.1" : this.step;
    this.go({ text: text.trim(), forced: [], head: null, query: -1, key: -1, step });
  }

  /** Go some steps on, or back. @param {number} count */
  move(count) {
    const steps = this.work.stepsOf(this.state);
    const next = steps[steps.indexOf(this.step) + count];
    if (next) this.go({ step: next, head: null }, { replace: this.timer > 0 });
    else this.stop();
  }

  play() {
    if (this.timer) return this.stop();
    this.timer = setInterval(() => this.move(1), PAUSE);
    if (this.step === "end") this.go({ step: "tokens", head: null });
    else this.draw();
  }

  stop() {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = 0;
    this.draw();
  }

  say(key, values = {}) {
    find("status").textContent = key ? this.t(key, values) : "";
  }

  complain(text) {
    find("error").hidden = !text;
    find("error").textContent = text;
  }

  /** Say in words what went wrong. @param {Error | Complaint} error */
  fail(error) {
    this.say("");
    if (error instanceof Complaint) return this.complain(this.t(error.key, error.values));
    const why = error.message;
    const kinds = [
      ["wasm", typeof WebAssembly === "undefined"],
      ["missing", /\b404\b/.test(why)],
      ["network", /fetch|import/i.test(why)],
    ];
    const [kind] = kinds.find(([, is]) => is) ?? ["any"];
    this.complain(this.t(`error.${kind}`, { why }));
    console.warn(error);
  }

  listen() {
    const isDark = () => document.documentElement.dataset.theme === "dark";
    const plain = { text: "", forced: [], off: [], head: null, step: "tokens" };
    const walk = (count) => () => {
      this.stop();
      this.move(count);
    };
    const on = (id, event, react) => find(id).addEventListener(event, react);
    on("language", "click", () => this.go({ lang: this.language === "zh" ? "en" : "zh" }, { replace: true }));
    on("theme", "click", () => this.go({ theme: isDark() ? "light" : "dark" }, { replace: true }));
    on("start-tour", "click", () => this.tour.start());
    on("back", "click", walk(-1));
    on("play", "click", () => this.play());
    on("forward", "click", walk(1));
    on("model", "change", (event) => this.go({ ...plain, model: event.target.value }));
    on("ask", "submit", (event) => {
      event.preventDefault();
      this.ask(find("text").value);
    });
    for (const event of ["popstate", "hashchange"]) addEventListener(event, () => this.arrive());
    system.addEventListener("change", () => this.draw());
    document.addEventListener("keydown", (event) => this.press(event));
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
    const count = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (count) {
      event.preventDefault();
      this.stop();
      this.move(count);
    } else if (event.key === "Escape" && this.state.head) {
      this.go({ head: null, key: -1 });
    }
  }
}

const app = new App();
app.listen();
app.update();
