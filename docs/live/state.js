// What the page shows, and its address: each step and setting is in it, so that a link brings it all back.

/**
 * @typedef {object} Head A head of an attention layer; layers and heads are counted from 0, in the address from 1.
 * @property {"enc" | "self" | "cross"} kind Of the encoder, of the decoder, or from the decoder to the source.
 * @property {number} layer
 * @property {number} head
 *
 * @typedef {object} State
 * @property {string} lang "zh" or "en"; "" is the browser's choice.
 * @property {string} theme "light" or "dark"; "" is the system's choice.
 * @property {string} model The folder of the model; "" is the first one.
 * @property {string} text
 * @property {string} step "tokens", "embed", "enc.1" … (encoder layers), "dec.1" … (words of the decoder), or "end".
 * @property {number} layer The decoder layer that is shown, from 0; -1 is the last one.
 * @property {string} open The box of a layer that is open; "" is its attention.
 * @property {Head | null} head The head that is open.
 * @property {number} query The token that looks; -1 is the most telling one.
 * @property {number} key The token that it looks at, in an open head; -1 is the one with most weight.
 * @property {"greedy" | "sample" | "beam"} method
 * @property {number} temperature
 * @property {number} topP
 * @property {number} seed
 * @property {number} beams
 * @property {number} penalty
 * @property {string[]} off What is switched off: "positions", "scaling", "causal", "cross", or heads as "enc.1.2".
 * @property {number[]} forced The target must begin with these tokens.
 * @property {number} tour The step of the tour, from 1; 0 is none.
 */

/** @type {State} */
export const START = {
  lang: "",
  theme: "",
  model: "",
  text: "",
  step: "tokens",
  layer: -1,
  open: "",
  head: null,
  query: -1,
  key: -1,
  method: "greedy",
  temperature: 1,
  topP: 0.9,
  seed: 1,
  beams: 4,
  penalty: 1,
  off: [],
  forced: [],
  tour: 0,
};

// The least and the most of numbers, which a link could get wrong.
const RANGES = {
  layer: [-1, 99],
  query: [-1, 999],
  key: [-1, 999],
  temperature: [0.1, 2],
  topP: [0.05, 1],
  seed: [1, 9999],
  beams: [1, 8],
  penalty: [-1, 3],
  tour: [0, 99],
};
const FRACTIONS = ["temperature", "topP", "penalty"]; // the others are whole
const WORDS = { lang: ["", "zh", "en"], theme: ["", "light", "dark"], method: ["greedy", "sample", "beam"] };
const STEP = /^(tokens|embed|end|enc\.\d+|dec\.\d+)$/;
const SWITCH = /^(positions|scaling|causal|cross|(enc|self|cross)\.\d+\.\d+)$/;

/** Write a head as an address and the switches do: "enc.1.2". @param {Head} head */
export const nameHead = ({ kind, layer, head }) => `${kind}.${layer + 1}.${head + 1}`;

/** Read a head's name. @param {string} name @returns {Head | null} */
export function readHead(name) {
  const found = /^(enc|self|cross)\.([1-9]\d*)\.([1-9]\d*)$/.exec(name);
  return found && { kind: /** @type {Head["kind"]} */ (found[1]), layer: found[2] - 1, head: found[3] - 1 };
}

/** Write what differs from the start. @param {State} state @returns {string} What follows the # of the address. */
export function writeAddress(state) {
  const words = new URLSearchParams();
  for (const [name, start] of Object.entries(START)) {
    const value = state[name];
    if (name === "head") {
      if (value) words.set("head", nameHead(value));
    } else if (Array.isArray(start)) {
      if (value.length) words.set(name, value.join("_"));
    } else if (value !== start) words.set(name, String(value));
  }
  return words.toString();
}

/**
 * Read an address; what makes no sense is left as it is at the start.
 * @param {string} address What follows the #.
 * @returns {State}
 */
export function readAddress(address) {
  const state = structuredClone(START);
  const words = new URLSearchParams(address);
  for (const [name, text] of words) {
    if (name in RANGES) {
      const [least, most] = RANGES[name];
      const number = Number(text);
      const near = FRACTIONS.includes(name) ? number : Math.round(number);
      if (Number.isFinite(number)) state[name] = Math.min(Math.max(near, least), most);
    } else if (name in WORDS) {
      if (WORDS[name].includes(text)) state[name] = text;
    } else if (name === "step") {
      if (STEP.test(text)) state.step = text;
    } else if (name === "head") {
      state.head = readHead(text);
    } else if (name === "off") {
      state.off = text.split("_").filter((one) => SWITCH.test(one));
    } else if (name === "forced") {
      state.forced = text
        .split("_")
        .map(Number)
        .filter((id) => Number.isInteger(id) && id >= 0);
    } else if (["model", "text", "open"].includes(name)) {
      state[name] = text;
    }
  }
  return state;
}

/** Split a step: "dec.3" is ["dec", 3]. @param {string} step @returns {[string, number]} */
export function splitStep(step) {
  const [name, number] = step.split(".");
  return [name, Number(number ?? 0)];
}

/**
 * List the steps of a text, in order.
 * @param {{layers: number, words: number, embeds?: boolean}} sizes Encoder layers, tokens of the target, and whether what
 *     enters the first layer can be shown.
 * @returns {string[]}
 */
export function listSteps({ layers, words, embeds = true }) {
  const numbered = (name, count) => Array.from({ length: count }, (_, i) => `${name}.${i + 1}`);
  return ["tokens", ...(embeds ? ["embed"] : []), ...numbered("enc", layers), ...numbered("dec", words), "end"];
}
