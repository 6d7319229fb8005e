// Load what the page needs, each thing once: the list of models, a tokenizer, the runtime, a model.

import { loadModel, loadTokenizers } from "./model.js";
import { loadRuntime } from "./runtime.js";

/**
 * What the page knows of the models that it may find: the kind of text, and examples.
 * @type {Object<string, {source: string, target: string, letters?: boolean, examples: string[]}>}
 */
const KNOWN = {
  "zh-en-small": {
    source: "zh",
    target: "en",
    examples: [
      "今天吃什么好",
      "这本书是谁的？",
      "我每天早上七点起床。",
      "我不知道他什么时候来。",
      "他太累了，不能再走了。",
    ],
  },
  "en-zh-small": { source: "en", target: "zh", examples: ["What shall we eat today?", "I like tea."] },
  "g2p-en": {
    source: "en",
    target: "en",
    letters: true,
    examples: ["transformer", "attention", "phone", "internationalization"],
  },
};
for (const name of ["g2p-en-distilled", "rnn-additive", "rnn-fixed"]) KNOWN[name] = KNOWN["g2p-en"];

/** What is known of a model; of others, nothing but that they take a text. @param {string} name */
export const about = (name) => KNOWN[name] ?? { source: "", target: "", examples: ["今天吃什么好", "hello"] };

const once = new Map();

/** Do something once for a key. A failure is forgotten, so that it can be tried again. */
function remember(key, load) {
  if (!once.has(key))
    once.set(
      key,
      load().catch((error) => {
        once.delete(key);
        throw error;
      }),
    );
  return once.get(key);
}

/**
 * The models that were built, the first one first.
 * @returns {Promise<{name: string, kind: string, bytes: number}[]>}
 */
export const listModels = () =>
  remember("models", async () => {
    const response = await fetch("models.json");
    if (!response.ok) throw new Error(`models.json: ${response.status} ${response.statusText}`);
    return response.json();
  });

/** The tokenizer of a model: small, and there long before the model is. @param {string} name */
export const loadTokenizer = (name) =>
  remember(`tokenizer ${name}`, async () => (await loadTokenizers(name)).sourceTokenizer);

/**
 * A model, and the runtime with the first one.
 * @param {string} name
 * @param {(loaded: number, total: number) => void} [onProgress] Is told how many bytes have come.
 * @returns {Promise<any>}
 */
export function loadWholeModel(name, onProgress = () => {}) {
  return remember(`model ${name}`, () =>
    loadModel(
      name,
      remember("runtime", () => loadRuntime("runtime")),
      onProgress,
    ),
  );
}
