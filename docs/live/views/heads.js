// All heads of all layers at once, as small pictures that open.

import { drawThumb } from "./attention.js";
import { make } from "./dom.js";
import { drawLegend } from "./draw.js";
import { part } from "./tensor.js";

/**
 * @param {import("../app.js").Page} page
 * @param {Object<string, any> | null} encoder The trace of the encoder.
 * @param {Object<string, any> | null} decoder That of the decoder, for a word.
 * @returns {HTMLElement}
 */
export function drawHeads(page, encoder, decoder) {
  const { t } = page;
  const groups = [
    ["enc", encoder?.["self.weights"]],
    ["self", decoder?.["self.weights"]],
    ["cross", decoder?.["cross.weights"]],
  ];
  return make(
    "div",
    { class: "heads" },
    groups
      .filter(([, weights]) => weights)
      .map(([kind, weights]) => {
        const [layers, heads] = weights.dims;
        const rows = [...Array(layers).keys()].map((layer) =>
          make(
            "div",
            { class: "heads-row" },
            make("span", { class: "heads-layer" }, t("layer.number", { number: layer + 1 })),
            [...Array(heads).keys()].map((head) => drawThumb(page, { kind, layer, head }, part(weights, layer, head))),
          ),
        );
        return make(
          "section",
          { class: "heads-group", "aria-label": t(`heads.${kind}`) },
          make("h3", {}, t(`heads.${kind}`)),
          rows,
        );
      }),
    make("p", { class: "note" }, t("heads.note"), " ", drawLegend("weight")),
  );
}
