// Make elements of the page. There is no framework: a view is a function that returns an element.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element: `make("button", {class: "chip", onclick: play}, "Play")`.
 * @param {string} tag
 * @param {Object<string, any>} [attributes] Functions become listeners, `dataset` and `style` are objects; null,
 *     undefined and false are left out; of aria-… only the first two.
 * @param {...(Node | string | null | undefined | false | Array)} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * Make an element of a drawing, as `make` does for the page.
 * @returns {SVGElement}
 */
export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("aria-"))
      element.setAttribute(name, String(value)); // "false" says something, too
    else if (value === false) continue;
    else if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/**
 * Draw something again without losing the keyboard's place: what had the focus is found by its `data-key`.
 * @param {HTMLElement} place
 * @param {...Node} children What it holds from now on.
 */
export function replace(place, ...children) {
  const active = document.activeElement;
  const key = place.contains(active) ? active.dataset.key : null;
  const scrolled = [...place.querySelectorAll("[data-scroll]")].map((box) => [box.dataset.scroll, box.scrollLeft]);
  place.replaceChildren(...children.filter(Boolean));
  for (const [name, left] of scrolled) {
    const box = place.querySelector(`[data-scroll="${name}"]`);
    if (box) box.scrollLeft = left;
  }
  if (key) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}
