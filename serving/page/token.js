// The token of a service that asks for one: asked for when it does, kept for this tab only.

import { $ } from "./dom.js";

const KEPT_AS = "seehear-token";
let asking = null;

export const heldToken = () => sessionStorage.getItem(KEPT_AS);

/** Forget the token that was just refused, unless a better one has come in the meantime. */
export function forgetToken(refused) {
  if (heldToken() === refused) sessionStorage.removeItem(KEPT_AS);
}

/** Ask the person; whether there is a token now. Requests that fail together ask once. */
export function askForToken(wasWrong) {
  if (heldToken()) return Promise.resolve(true);
  asking ??= ask(wasWrong).finally(() => { asking = null; });
  return asking;
}

function ask(wasWrong) {
  const dialog = $("token-dialog");
  $("token").value = "";
  $("token-wrong").hidden = !wasWrong;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" && $("token").value.trim();
      if (given) sessionStorage.setItem(KEPT_AS, given);
      resolve(Boolean(given));
    }, { once: true });
  });
}
