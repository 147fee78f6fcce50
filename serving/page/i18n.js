// The language of the page. What an element says is kept on the element itself (data-t, data-t-label and their values),
// so switching the language says everything again that stands there, answers and errors included.

import { STRINGS } from "./strings.js";

const KEPT_AS = "seehear-language";
const changed = [];
let language = localStorage.getItem(KEPT_AS) || (navigator.language.startsWith("zh") ? "zh" : "en");

export const isKnown = (key) => Object.hasOwn(STRINGS.en, key);

/** The sentence of that name. A value that is itself {t: name} is translated too. */
export function t(key, values = {}) {
  return STRINGS[language][key].replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return value !== null && typeof value === "object" ? t(value.t, value.values) : value;
  });
}

export function setText(element, key, values = {}) {
  Object.assign(element.dataset, { t: key, tValues: JSON.stringify(values) });
  element.textContent = t(key, values);
}

export function setLabel(element, key, values = {}) {
  Object.assign(element.dataset, { tLabel: key, tLabelValues: JSON.stringify(values) });
  element.setAttribute("aria-label", t(key, values));
}

/** Text that no table knows, such as the service's own words or a file's name. */
export function setPlain(element, text) {
  delete element.dataset.t;
  element.textContent = text;
}

/** note: text as it is, or {t, values}. */
export function sayNote(element, note) {
  if (typeof note === "string") setPlain(element, note);
  else setText(element, note.t, note.values);
}

export function onLanguage(act) {
  changed.push(act);
}

export function sayEverything() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-t]")) {
    element.textContent = t(element.dataset.t, JSON.parse(element.dataset.tValues || "{}"));
  }
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel, JSON.parse(element.dataset.tLabelValues || "{}")));
  }
  changed.forEach((act) => act());
}

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem(KEPT_AS, language);
  sayEverything();
}
