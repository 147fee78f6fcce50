// The picture: drawn on the pad, or a file shown on it. Everything can be undone.

import { $ } from "./dom.js";
import { sayNote, setLabel } from "./i18n.js";

const INK_WIDTH = 0.085; // of the pad: as thick as handwritten digits usually are
const MOST_UNDOS = 30;
const EMPTY = { kind: "empty", blob: null, note: { t: "pictureNote" } };
const DRAWN = { kind: "drawn", blob: null, note: { t: "pictureDrawn" }, place: { scale: 1, left: 0, top: 0 } };

const pad = $("pad");
const ink = pad.getContext("2d", { willReadFrequently: true });
const past = [];
let now = EMPTY;
let turn = 0;

/** How many pictures have stood here: by it one tells whether this is another one than before. */
export const pictures = () => turn;

/** A blob of what is on the pad, a file as it came; null where there is nothing. */
export function currentPicture() {
  if (now.kind !== "drawn") return Promise.resolve(now.blob);
  return new Promise((resolve) => pad.toBlob(resolve, "image/png"));
}

/** note: how it is called, as in sayNote. The service may be able to read what this browser cannot show. */
export async function choosePicture(blob, note) {
  const mine = ++turn;
  const bitmap = await createImageBitmap(blob).catch(() => null);
  if (mine !== turn) return; // another has been given meanwhile
  remember();
  wipe();
  const unseen = { t: "pictureUnseen", values: { name: note } };
  const place = bitmap && placeOf(bitmap);
  become({ kind: "file", blob, note: bitmap ? note : unseen, place });
  if (!bitmap) return;
  ink.imageSmoothingEnabled = place.scale < 1;
  ink.drawImage(bitmap, place.left, place.top, bitmap.width * place.scale, bitmap.height * place.scale);
}

/** Where a box in pixels of the picture lies on the pad, as a style; null where the picture cannot be shown. */
export function placeOnPad([x0, y0, x1, y1]) {
  if (!now.place) return null;
  const { scale, left, top } = now.place;
  const share = (pixels, side) => `${(100 * pixels) / side}%`;
  return {
    left: share(left + scale * x0, pad.width), top: share(top + scale * y0, pad.height),
    width: share(scale * (x1 - x0), pad.width), height: share(scale * (y1 - y0), pad.height),
  };
}

export function setUpPicture() {
  pad.addEventListener("pointerdown", startStroke);
  pad.addEventListener("pointermove", goOn);
  $("clear").addEventListener("click", clear);
  $("undo").addEventListener("click", undo);
  $("picture-file").addEventListener("change", ({ target }) => {
    if (target.files[0]) choosePicture(target.files[0], target.files[0].name);
    target.value = ""; // the same file may be chosen again
  });
  wipe();
  become(EMPTY);
}

function placeOf({ width, height }) {
  const scale = Math.min(pad.width / width, pad.height / height);
  return { scale, left: (pad.width - width * scale) / 2, top: (pad.height - height * scale) / 2 };
}

function become(state) {
  turn++;
  now = state;
  $("objects").replaceChildren(); // they were found in another picture
  $("pad-hint").hidden = state.kind !== "empty";
  sayNote($("picture-note"), state.note);
  if (state.kind === "file") setLabel(pad, "padShows", { name: state.note });
  else setLabel(pad, state.kind === "drawn" ? "padDrawn" : "padEmpty");
  $("undo").disabled = past.length === 0;
  $("clear").disabled = state.kind === "empty";
}

function remember() {
  past.push({ image: ink.getImageData(0, 0, pad.width, pad.height), state: now });
  if (past.length > MOST_UNDOS) past.shift();
}

function undo() {
  const { image, state } = past.pop();
  ink.putImageData(image, 0, 0);
  become(state);
  if ($("undo").disabled) $("picture-file").focus(); // a disabled button would drop the focus
}

function clear() {
  remember();
  wipe();
  become(EMPTY);
  $("undo").focus();
}

function wipe() {
  ink.fillStyle = "#000";
  ink.fillRect(0, 0, pad.width, pad.height);
}

function padPoint(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
}

function startStroke(event) {
  if (event.button !== 0) return;
  remember();
  if (now.kind === "file") wipe(); // a drawing is not laid over a photograph
  become(DRAWN);
  pad.setPointerCapture(event.pointerId);
  Object.assign(ink, { strokeStyle: "#fff", lineWidth: INK_WIDTH * pad.width, lineCap: "round", lineJoin: "round" });
  ink.beginPath();
  ink.moveTo(...padPoint(event));
  ink.lineTo(...padPoint(event));
  ink.stroke();
}

function goOn(event) {
  if (!event.buttons || !pad.hasPointerCapture(event.pointerId)) return;
  for (const part of event.getCoalescedEvents?.() ?? [event]) ink.lineTo(...padPoint(part));
  ink.stroke();
}
