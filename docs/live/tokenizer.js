// Text to ids and back, as a tokenizer.json describes it: what the Rust library `tokenizers` does, in JavaScript.
//
// A text goes through five steps (fun_transformer/tokenization_fun_transformer.py says why):
//
//     1. special tokens such as </s> are found; what is between them is cut on
//     2. the normalizer: NFC, one space between words            "I  am" -> "I am"
//     3. the pre-tokenizer: spaces become ▁, words come apart    "I am"  -> "▁I", "▁am"
//     4. the model: words become tokens of the vocabulary        "▁am"   -> "▁am", or "▁a", "m"
//     5. the post-processor: </s> at the end
//
// A text is kept as a list of characters that know where they come from, so that a token can be shown in the text.

/**
 * A character of the text and its place in what was typed, as `text.slice(start, end)` counts.
 * @typedef {{character: string, start: number, end: number}} Character
 */

/**
 * @typedef {object} Encoding
 * @property {number[]} ids
 * @property {string[]} pieces What the vocabulary writes for each id.
 * @property {[number, number][]} spans The place of each piece in the text; empty for what no character gave.
 * @property {{normalized: string, words: string[]}} steps The text after step 2, and its words after step 3.
 */

export class Tokenizer {
  /** @param {any} description What a tokenizer.json holds. */
  constructor(description) {
    const { model, normalizer, pre_tokenizer, post_processor, decoder, added_tokens } = description;
    this.model = MODELS[known(model.type, MODELS, "model")](model);
    this.normalize = step(normalizer, NORMALIZERS, "normalizer");
    this.split = step(pre_tokenizer, SPLITTERS, "pre-tokenizer");
    this.join = step(decoder, DECODERS, "decoder");
    this.ending = endingOf(post_processor);
    /** @type {Map<string, number>} */
    this.special = new Map(added_tokens.map((token) => [token.content, token.id]));
    refusePlainTokens(added_tokens);
    const names = [...this.special.keys()].sort((a, b) => b.length - a.length).map(escaped);
    this.specialNames = new RegExp(names.join("|"), "gv"); // without names it finds nothing but empty places
    this.specialIds = new Set(this.special.values());
    this.texts = [];
    for (const [piece, id] of [...this.model.vocabulary, ...this.special]) this.texts[id] = piece;
  }

  /** @param {any} tokenizerJson What a tokenizer.json holds, as text or already parsed. */
  static fromJSON(tokenizerJson) {
    return new Tokenizer(typeof tokenizerJson === "string" ? JSON.parse(tokenizerJson) : tokenizerJson);
  }

  /** Number of tokens. */
  get vocabularySize() {
    return this.texts.length;
  }

  /** What the vocabulary writes for an id. @param {number} id @returns {string} */
  piece(id) {
    return this.texts[id] ?? "";
  }

  /** @param {string} text @returns {Encoding} */
  encode(text) {
    const tokens = [];
    const steps = { normalized: "", words: [] };
    for (const part of this.parts(characters(text))) {
      if (part.id !== undefined) {
        tokens.push({ id: part.id, ...span(part.characters) });
        continue;
      }
      const normalized = this.normalize(part.characters);
      const words = this.split([normalized]).filter((word) => word.length);
      steps.normalized += textOf(normalized);
      steps.words.push(...words.map(textOf));
      for (const word of words) tokens.push(...this.model.encode(word));
    }
    for (const id of this.ending) tokens.push({ id, start: text.length, end: text.length });
    return {
      ids: tokens.map((token) => token.id),
      pieces: tokens.map((token) => this.piece(token.id)),
      spans: tokens.map((token) => [token.start, token.end]),
      steps,
    };
  }

  /**
   * How a word of step 3 becomes tokens: its pieces at first, and after each join.
   * @param {string} word
   * @returns {{pieces: string[], rank: number, place: number}[]} rank: of the pair among those that were learned, from
   *     0; place: of the new piece. Both are -1 at first. Empty where words are not put together.
   */
  joins(word) {
    return this.model.joins(characters(word));
  }

  /** The text of ids, without special tokens. @param {Iterable<number>} ids @returns {string} */
  decode(ids) {
    const pieces = [...ids].filter((id) => !this.specialIds.has(id)).map((id) => this.piece(id));
    return this.join(pieces).join("");
  }

  /** Step 1: the special tokens of a text, and what is between them. @param {Character[]} text */
  *parts(text) {
    let before = 0;
    for (const [start, end] of matches(text, this.specialNames)) {
      if (start > before) yield { characters: text.slice(before, start) };
      const found = text.slice(start, end);
      yield { characters: found, id: this.special.get(textOf(found)) };
      before = end;
    }
    if (before < text.length) yield { characters: text.slice(before) };
  }
}

// Characters with places

/** @param {string} text @returns {Character[]} */
function characters(text) {
  let end = 0;
  return Array.from(text, (character) => ({ character, start: end, end: (end += character.length) }));
}

const textOf = (/** @type {Character[]} */ characters) => characters.map((one) => one.character).join("");

const span = (/** @type {Character[]} */ found) => ({ start: found[0].start, end: found[found.length - 1].end });

/** Characters of a new text that all come from the same place. */
const placed = (text, place) => Array.from(text, (character) => ({ ...place, character }));

/** Where a pattern is found, counted in characters. @param {Character[]} text @param {RegExp} pattern */
function* matches(text, pattern) {
  const places = [];
  text.forEach((one, index) => {
    for (let unit = 0; unit < one.character.length; unit++) places.push(index);
  });
  places.push(text.length);
  for (const match of textOf(text).matchAll(pattern)) {
    if (match[0]) yield [places[match.index], places[match.index + match[0].length]];
  }
}

// What a tokenizer.json may say

/** The name of a kind, if there is such a kind here. */
function known(type, kinds, what) {
  if (type in kinds) return type;
  throw new Error(`The ${what} ${type} is not known here. Known: ${Object.keys(kinds).join(", ")}.`);
}

/** A function for a part of the description: `Sequence` runs its members one after the other. */
function step(description, kinds, what) {
  if (!description) return (value) => value;
  const members = description[{ normalizer: "normalizers", "pre-tokenizer": "pretokenizers", decoder: "decoders" }[what]];
  if (description.type === "Sequence") {
    const steps = members.map((member) => step(member, kinds, what));
    return (value) => steps.reduce((result, one) => one(result), value);
  }
  return kinds[known(description.type, kinds, what)](description);
}

const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|\/]/g, "\\$&");

/** A pattern of the description, {String: ...} or {Regex: ...}, for JavaScript. */
function patternOf({ String: text, Regex: pattern }) {
  return new RegExp(text === undefined ? translated(pattern) : escaped(text), "gv");
}

/**
 * A pattern as Rust's tokenizers read it (Oniguruma), for JavaScript with the flag v: scripts are named, \A is ^, and
 * both sides of && are classes of their own.
 */
function translated(pattern) {
  const named = pattern.replace(/\\p\{(Han|Hiragana|Katakana)\}/g, "\\p{Script=$1}").replaceAll("\\A", "^");
  let [result, depth, sides] = ["", 0, []];
  for (let index = 0; index < named.length; index++) {
    const character = named[index];
    if (character === "\\") {
      result += character + named[++index];
    } else if (character === "[") {
      sides[++depth] = result.length + 1;
      result += character;
    } else if (character === "]") {
      const start = sides[depth--];
      result += result.startsWith("\0", start) ? "]]" : "]";
    } else if (named.startsWith("&&", index) && depth) {
      const start = sides[depth];
      result = `${result.slice(0, start)}\0[${result.slice(start)}]&&[`;
      index++;
    } else {
      result += character;
    }
  }
  return result.replaceAll("\0", "");
}

function refusePlainTokens(added) {
  const plain = added.filter((token) => token.normalized || !token.special || token.lstrip || token.rstrip);
  if (plain.length) throw new Error(`Added tokens such as ${plain[0].content} are not known here, only special ones.`);
}

/** Step 5: the ids at the end of a text. */
function endingOf(description) {
  if (!description) return [];
  known(description.type, { TemplateProcessing: true }, "post-processor");
  const [text, ...ending] = description.single;
  if (!text.Sequence) throw new Error("A post-processor that puts tokens before a text is not known here.");
  return ending.flatMap((part) => description.special_tokens[part.SpecialToken.id].ids);
}

// Step 2

const NORMALIZERS = {
  NFC: () => composed,
  // Rust looks at each character alone: Σ at the end of a word becomes σ, not ς.
  Lowercase: () => (text) => text.flatMap((one) => placed(one.character.toLowerCase(), one)),
  Replace: ({ pattern, content }) => {
    const wanted = patternOf(pattern);
    return (text) => replaced(text, wanted, content);
  },
  Strip: ({ strip_left, strip_right }) => (text) => {
    const isSpace = (/** @type {Character} */ one) => /^\p{White_Space}$/v.test(one.character);
    let [start, end] = [0, text.length];
    while (strip_left && start < end && isSpace(text[start])) start++;
    while (strip_right && end > start && isSpace(text[end - 1])) end--;
    return text.slice(start, end);
  },
};

/** @param {Character[]} text @param {RegExp} pattern @param {string} content */
function replaced(text, pattern, content) {
  const result = [];
  let before = 0;
  for (const [start, end] of matches(text, pattern)) {
    result.push(...text.slice(before, start), ...placed(content, span(text.slice(start, end))));
    before = end;
  }
  return [...result, ...text.slice(before)];
}

/** Letters and their accents as one character: a letter is composed with the marks that follow it. */
function composed(text) {
  const whole = textOf(text).normalize("NFC");
  const groups = [];
  for (const one of text) {
    if (groups.length && /^[\p{M}\u1160-\u11FF]$/v.test(one.character)) groups[groups.length - 1].push(one);
    else groups.push([one]);
  }
  const result = groups.flatMap((group) => {
    const normal = textOf(group).normalize("NFC");
    return normal === textOf(group) ? group : placed(normal, span(group));
  });
  return textOf(result) === whole ? result : placed(whole, span(text));
}

// Step 3

/** Each takes and gives a list of words. @type {Record<string, (description: any) => (words: Character[][]) => Character[][]>} */
const SPLITTERS = {
  Metaspace: ({ replacement, prepend_scheme, split }) => {
    if (split || prepend_scheme === "first") throw new Error("Metaspace with split or 'first' is not known here.");
    return (words) =>
      words.map((word) => {
        const marked = replaced(word, / /gv, replacement);
        if (prepend_scheme === "never" || !marked.length || marked[0].character === replacement) return marked;
        return [{ character: replacement, start: marked[0].start, end: marked[0].start }, ...marked];
      });
  },
  Split: ({ pattern, behavior, invert }) => {
    if (invert || !["Isolated", "Removed"].includes(behavior)) throw new Error(`Split ${behavior} is not known here.`);
    const wanted = patternOf(pattern);
    return (words) => words.flatMap((word) => pieces(word, wanted, behavior === "Isolated"));
  },
};

/** What a pattern finds and what is between, without what is empty. */
function pieces(word, pattern, isKept) {
  const result = [];
  let before = 0;
  for (const [start, end] of matches(word, pattern)) {
    result.push(word.slice(before, start), isKept ? word.slice(start, end) : []);
    before = end;
  }
  return [...result, word.slice(before)].filter((piece) => piece.length);
}

// Step 4

const MODELS = { BPE: (model) => new BytePairs(model), WordLevel: (model) => new WholeWords(model) };

/** Each word is a token, or unknown. */
class WholeWords {
  constructor({ vocab, unk_token }) {
    this.vocabulary = new Map(Object.entries(vocab));
    this.unknown = this.vocabulary.get(unk_token);
  }

  /** @param {Character[]} word */
  encode(word) {
    return [{ id: this.vocabulary.get(textOf(word)) ?? this.unknown, ...span(word) }];
  }

  /** Nothing is joined. */
  joins() {
    return [];
  }
}

/** Byte pair encoding (Sennrich et al. 2016): neighbours are joined, those first that were learned first. */
class BytePairs {
  constructor({ vocab, merges, unk_token, byte_fallback, ...others }) {
    const foreign = Object.entries(others).filter(([name, value]) => name !== "type" && value);
    if (foreign.length) throw new Error(`BPE with ${foreign[0][0]} is not known here.`);
    this.vocabulary = new Map(Object.entries(vocab));
    this.unknown = this.vocabulary.get(unk_token);
    this.hasBytes = byte_fallback;
    this.ranks = new Map(merges.map((pair, rank) => [(Array.isArray(pair) ? pair : pair.split(" ")).join("\0"), rank]));
  }

  /** @param {Character[]} word */
  encode(word) {
    const parts = word.flatMap((one) => this.symbols(one));
    while (this.join(parts));
    return parts.map(({ piece, start, end }) => ({ id: this.vocabulary.get(piece) ?? this.unknown, start, end }));
  }

  /** Join the neighbours that were learned first, in place; null where none were. */
  join(parts) {
    let [best, place] = [Infinity, -1];
    for (let index = 0; index + 1 < parts.length; index++) {
      const rank = this.ranks.get(`${parts[index].piece}\0${parts[index + 1].piece}`);
      if (rank < best) [best, place] = [rank, index];
    }
    if (place < 0) return null;
    const [left, right] = parts.slice(place, place + 2);
    parts.splice(place, 2, { piece: left.piece + right.piece, start: left.start, end: right.end });
    return { rank: best, place };
  }

  /** All joins of a word, one after the other. @param {Character[]} word */
  joins(word) {
    const parts = word.flatMap((one) => this.symbols(one));
    const seen = () => parts.map(({ piece }) => piece);
    const steps = [{ pieces: seen(), rank: -1, place: -1 }];
    for (let joined = this.join(parts); joined; joined = this.join(parts)) steps.push({ ...joined, pieces: seen() });
    return steps;
  }

  /** A character as the vocabulary has it: itself, or its UTF-8 bytes as <0xE4>, or unknown. */
  symbols({ character, start, end }) {
    if (this.vocabulary.has(character) || !this.hasBytes) return [{ piece: character, start, end }];
    const bytes = new TextEncoder().encode(character);
    return Array.from(bytes, (byte) => ({ piece: byteToken(byte), start, end }));
  }
}

const byteToken = (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;

// The way back

/** Each takes and gives a list of pieces. @type {Record<string, (description: any) => (pieces: string[]) => string[]>} */
const DECODERS = {
  Replace: ({ pattern, content }) => {
    const wanted = patternOf(pattern);
    return (pieces) => pieces.map((piece) => piece.replace(wanted, () => content));
  },
  ByteFallback: () => joinBytes,
  Fuse: () => (pieces) => [pieces.join("")],
  Strip: ({ content, start, stop }) => (pieces) =>
    pieces.map((piece) => {
      for (let times = 0; times < start && piece.startsWith(content); times++) piece = piece.slice(content.length);
      for (let times = 0; times < stop && piece.endsWith(content); times++) piece = piece.slice(0, -content.length);
      return piece;
    }),
};

/** Runs of bytes as characters; those that are none as U+FFFD, one for each byte. */
function joinBytes(pieces) {
  const [result, bytes] = [[], []];
  const flush = () => {
    if (!bytes.length) return;
    try {
      const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
      result.push(decoder.decode(Uint8Array.from(bytes)));
    } catch {
      result.push("\uFFFD".repeat(bytes.length));
    }
    bytes.length = 0;
  };
  for (const piece of pieces) {
    const byte = /^<0x([0-9A-F]{2})>$/.exec(piece);
    if (byte) bytes.push(parseInt(byte[1], 16));
    else flush(), result.push(piece);
  }
  flush();
  return result;
}
