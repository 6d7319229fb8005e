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
  const { pieces, ids, spans, steps } = source;
  const letters = [...page.text].map((letter) => make("span", {}, letter));
  const places = placesOf(page.text);
  const light = (index, on) =>
    letters.forEach((letter, i) => {
      const [start, end] = spans[index] ?? [0, 0];
      letter.classList.toggle("lit", on && places[i] >= start && places[i] < end);
    });
  const cut = pieces.map((piece, index) =>
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
  const row = (name, ...content) =>
    make("div", { class: "cut-row" }, make("h4", {}, t(`tokens.${name}`)), make("div", { class: "cut" }, content));
  const joins = page.joins.filter((steps) => steps.length > 1).map((steps) => drawJoins(page, steps));
  const bytes = pieces.some((piece) => /^<0x/.test(piece));
  return make(
    "div",
    { class: "view view-tokens" },
    make("p", { class: "lead" }, t("tokens.lead", { count: pieces.length })),
    row("typed", make("span", { class: "letters" }, letters)),
    row("normalized", make("span", { class: "letters" }, steps.normalized)),
    row(
      "words",
      steps.words.map((word) => make("span", { class: "word" }, word)),
    ),
    row("pieces", make("ol", { class: "pieces" }, cut)),
    joins.length > 0 &&
      make(
        "section",
        { class: "block block-joins" },
        make("h3", {}, t("tokens.joins")),
        make("p", { class: "note" }, t("tokens.joins.note")),
        make("div", { class: "joins" }, joins),
      ),
    make(
      "p",
      { class: "note" },
      t(bytes ? "tokens.bytes" : "tokens.note", { size: page.vocabularySize.toLocaleString("en") }),
    ),
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
