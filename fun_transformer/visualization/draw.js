// Attention as colours and bars: what attention_page.html and docs/live draw with. No state, no page of its own.

/** Colours of weights from 0 to 1 (cividis: all eyes see dark become bright), as [red, green, blue]. */
const WEIGHTS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
/** Colours of values from -1 to 1: blue, nearly white, orange. */
const SIGNED = [[0, 73, 122], [90, 165, 214], [246, 246, 246], [240, 163, 94], [168, 67, 0]];
/** The same for a dark page: 0 is as dark as the page, and what is large is bright. */
const SIGNED_ON_DARK = [[120, 190, 240], [20, 95, 150], [34, 38, 44], [165, 80, 15], [250, 170, 95]];

/** The colour at a place from 0 to 1 on a ramp, as [red, green, blue]. */
function mix(ramp, place) {
  const along = Math.min(1, Math.max(0, place)) * (ramp.length - 1), i = Math.min(ramp.length - 2, Math.floor(along));
  return ramp[i].map((low, part) => Math.round(low + (along - i) * (ramp[i + 1][part] - low)));
}

/** The colour of a weight from 0 to 1; it grows with the square root, so that small weights can be seen. */
export const weightColour = weight => mix(WEIGHTS, Math.sqrt(weight));

/** The colour of a value between -largest and largest. */
export const signedColour = (value, largest, isDark = false) =>
  mix(isDark ? SIGNED_ON_DARK : SIGNED, 0.5 + 0.5 * value / (largest || 1));

/** Black or white, whichever can be read on a colour. */
export const inkOn = ([red, green, blue]) => (0.3 * red + 0.59 * green + 0.11 * blue > 128 ? "#000000" : "#ffffff");

/** Draw a matrix [row][column], a pixel a cell: CSS makes it as large as it should be (image-rendering: pixelated). */
export function drawMatrix(canvas, matrix, colour = weightColour) {
  [canvas.width, canvas.height] = [Math.max(1, matrix[0]?.length ?? 0), Math.max(1, matrix.length)];
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  matrix.forEach((row, i) => row.forEach((value, j) =>
    image.data.set([...colour(value), 255], 4 * (i * canvas.width + j))));
  context.putImageData(image, 0, 0);
}

/** A list of bars, each [label, share from 0 to 1]; `chosen` is the label that is marked. */
export function barList(rows, chosen, lang = "") {
  const list = document.createElement("ol");
  list.className = "bars";
  list.append(...rows.map(([label, share]) => {
    const item = document.createElement("li"), name = document.createElement("span"), bar = document.createElement("i");
    [name.textContent, name.lang] = [label, lang];
    bar.style.setProperty("--share", share.toFixed(4));
    item.classList.toggle("chosen", label === chosen);
    item.append(name, bar, `${(100 * share).toFixed(1)} %`);
    return item;
  }));
  return list;
}
