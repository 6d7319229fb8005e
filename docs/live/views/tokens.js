// How a text becomes tokens: as typed, made regular, cut into words, cut into pieces of the vocabulary.

import { make } from "./dom.js";

/** Write a piece as people read it: ▁ is the space before a word. @param {string} piece */
export function readable(piece) {
  const text = piece.replace(/^▁/, "").replaceAll("▁", " ");
  return text === "" ? "▁" : text;
}

/**
 * @param {import("../app.js").Page} page
 * @returns {HTMLElement}
 */
export function drawTokens(page) {
  const { t, source } = page;
  const { pieces, steps } = source;
  const letters = [...page.text].map((letter) => make("span", {}, letter));
  const words = steps.words.map((word) => make("span", { class: "word" }, word));
  const row = (name, ...content) =>
    make("div", { class: "cut-row" }, make("h4", {}, t(`tokens.${name}`)), make("div", { class: "cut" }, content));
  const isCut = page.joins.some((steps) => steps.length); // else each letter is a token
  const isUnknown = pieces.includes("<unk>");
  const note = isUnknown
    ? "unknown"
    : pieces.some((piece) => /^<0x/.test(piece))
      ? "bytes"
      : isCut
        ? "note"
        : "letters";
  return make(
    "div",
    { class: "view view-tokens" },
    make("p", { class: "lead" }, t("tokens.lead", { count: pieces.length })),
    row("typed", make("span", { class: "letters" }, letters)),
    row("normalized", make("span", { class: "letters" }, steps.normalized)),
    row("words", words),
    row("pieces", make("ol", { class: "pieces" }, drawPieces(page, letters))),
    drawAllJoins(page),
    make("p", { class: "note" }, t(`tokens.${note}`, { size: page.vocabularySize.toLocaleString("en") })),
  );
}

/** The tokens with their ids; the letters of the text light up that a token comes from. */
function drawPieces({ t, text, source }, letters) {
  const { pieces, ids, spans } = source;
  const places = placesOf(text);
  const light = (index, isOn) =>
    letters.forEach((letter, i) => {
      const [start, end] = spans[index] ?? [0, 0];
      letter.classList.toggle("lit", isOn && places[i] >= start && places[i] < end);
    });
  return pieces.map((piece, index) =>
    make(
      "li",
      {
        class: "piece",
        tabindex: 0,
        style: { "--tint": `var(--tint-${index % 4})` },
        "aria-label": t("tokens.piece", { number: index + 1, piece, id: ids[index] }),
        onpointerenter: () => light(index, true),
        onpointerleave: () => light(index, false),
        onfocus: () => light(index, true),
        onblur: () => light(index, false),
      },
      make("b", {}, piece),
      make("small", {}, String(ids[index])),
    ),
  );
}

/** How all words were put together; nothing where none was. */
function drawAllJoins(page) {
  const { t } = page;
  const joins = page.joins.filter((steps) => steps.length > 1).map((steps) => drawJoins(page, steps));
  if (!joins.length) return null;
  return make(
    "section",
    { class: "block block-joins" },
    make("h3", {}, t("tokens.joins")),
    make("p", { class: "note" }, t("tokens.joins.note")),
    make("div", { class: "joins" }, joins),
  );
}

/** How a word is put together, a line for each join, the new piece marked. */
function drawJoins({ t }, steps) {
  return make(
    "ol",
    { class: "joins-word" },
    steps.map(({ pieces, rank, place }) =>
      make(
        "li",
        {},
        pieces.map((piece, index) => make(index === place ? "mark" : "span", {}, piece)),
        make("small", {}, rank < 0 ? t("tokens.joins.start") : t("tokens.joins.rank", { rank: rank + 1 })),
      ),
    ),
  );
}

/** Where each character begins in a text, as JavaScript counts. @param {string} text */
function placesOf(text) {
  let place = 0;
  return [...text].map((letter) => {
    place += letter.length;
    return place - letter.length;
  });
}
