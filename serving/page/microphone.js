// The microphone, as plain samples: MediaRecorder would compress them first.

import { Fault } from "./api.js";

/** Opens the microphone. onBlock(samples) is called for every few milliseconds.
 *  Returns {rateHz, stop()}. Rejects with a Fault that says why not. */
export async function openMicrophone(onBlock) {
  const stream = await openStream();
  let context = null;
  let capture = null;
  const stop = async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context?.close();
    if (capture) capture.port.onmessage = null;
  };
  try {
    context = new AudioContext();
    await context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    await context.resume();
    capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => onBlock(data);
    context.createMediaStreamSource(stream).connect(capture); // Firefox refuses where the rates differ
    return { rateHz: context.sampleRate, stop };
  } catch (reason) {
    await stop();
    throw new Fault("micFailed", { reason: reason.message });
  }
}

async function openStream() {
  if (!navigator.mediaDevices) throw new Fault("micInsecure");
  // What telephones do to speech would be done to the words as well
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (reason) {
    if (reason.name === "NotAllowedError") throw new Fault("micDenied");
    if (reason.name === "NotFoundError") throw new Fault("micMissing");
    throw new Fault("micFailed", { reason: reason.message });
  }
}

/** 0 (-60 dB of full scale or less) to 1 (full scale). */
export function levelOf(samples) {
  const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
  return Math.max(0, Math.min(1, 1 + Math.log10(power + 1e-12) / 6));
}
