// What was found in the picture, marked on the pad where there are several; pressing a mark asks for that one instead.

import { $, make, percent } from "./dom.js";
import { setLabel } from "./i18n.js";
import { placeOnPad } from "./picture.js";

/** ask: what to do with the number of the object that is pressed. */
export function markObjects({ objects, object }, ask) {
  const marks = objects.map((found, number) => mark(found, number === object, () => ask(number)));
  $("objects").replaceChildren(...(marks.length > 1 && marks.every(Boolean) ? marks : []));
}

function mark({ label, probability, box }, isAsked, act) {
  const place = placeOnPad(box);
  if (!place) return null; // this browser cannot show the picture
  const button = make("button", { type: "button", className: "object" }, make("span", { textContent: label }));
  Object.assign(button.style, place);
  button.setAttribute("aria-pressed", String(isAsked));
  setLabel(button, "objectAt", { word: label, p: percent(probability) });
  button.addEventListener("click", act);
  return button;
}
