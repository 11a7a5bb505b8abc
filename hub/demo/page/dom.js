/** The page itself: elements, and painting once per frame, whatever came. */

export const $ = (id) => document.getElementById(id);
export const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Return an element; strings become text, never markup. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function fill(input, text) {
  if (input.value !== text) input.value = input.title = text;
}

const painters = [];
let painting = false;

/** Call `painter` in each frame in which something has changed. */
export function onPaint(painter) {
  painters.push(painter);
}

export function paint() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    for (const painter of painters) painter();
  });
}
