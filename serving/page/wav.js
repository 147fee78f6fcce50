// Sound in and out of files. What is written is 16-bit mono WAV, which the service always reads.

const OTHER_RATE_HZ = 48000; // what files are decoded at whose own rate is not in their first bytes

/** Blob of a 16-bit mono WAV. samples: Float32Array, full scale at 1; what lies beyond is clipped. */
export function encodeWav(samples, rateHz) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rateHz, true); view.setUint32(28, 2 * rateHz, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => {
    view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(value * 32768))), true);
  });
  return new Blob([view], { type: "audio/wav" });
}

/** {samples, rateHz}: the mean of the channels, at the file's own rate where a WAV or FLAC names it, else at rateHz.
 *  Rejects where the browser cannot decode it. */
export async function decode(blob, rateHz = OTHER_RATE_HZ) {
  const bytes = await blob.arrayBuffer();
  return decodeAt(bytes, rateOf(bytes) ?? rateHz);
}

/** The same, brought to a given rate. */
export async function decodeAt(bytes, rateHz) {
  const plain = plainWav(bytes);
  if (plain?.rateHz === rateHz) return plain;
  const sound = await new OfflineAudioContext(1, 1, rateHz).decodeAudioData(bytes);
  const channels = Array.from({ length: sound.numberOfChannels }, (_, channel) => sound.getChannelData(channel));
  return { samples: meanOf(channels.length, sound.length, (channel, i) => channels[channel][i]), rateHz };
}

// Browsers scale 16-bit samples up by 1/32767 where the service does by 1/32768: what is heard and sent would differ in
// the last bit. So the two kinds of WAV that the service writes are read here.
function plainWav(bytes) {
  const view = new DataView(bytes);
  const { "fmt ": format, data } = chunksOf(view);
  if (!format || !data) return null;
  const [kind, channels, bits] = [0, 2, 14].map((at) => view.getUint16(format.at + at, true));
  const read = {
    "1/16": (at) => view.getInt16(at, true) / 32768,
    "3/32": (at) => view.getFloat32(at, true),
  }[`${kind}/${bits}`];
  if (!read || !channels) return null;
  const width = bits / 8;
  const value = (channel, i) => read(data.at + (i * channels + channel) * width);
  const samples = meanOf(channels, Math.floor(data.bytes / width / channels), value);
  return { samples, rateHz: view.getUint32(format.at + 4, true) };
}

function meanOf(channels, length, value) {
  const samples = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) sum += value(channel, i);
    samples[i] = sum / channels;
  }
  return samples;
}

/** Where the chunks of a WAV lie, by name: {at, bytes}, cut to what is there. Empty for anything else. */
function chunksOf(view) {
  const found = {};
  const word = (at) => String.fromCharCode(...new Uint8Array(view.buffer, at, 4));
  if (view.byteLength < 12 || word(0) !== "RIFF" || word(8) !== "WAVE") return found;
  for (let at = 12; at + 8 <= view.byteLength;) {
    const bytes = view.getUint32(at + 4, true);
    found[word(at)] ??= { at: at + 8, bytes: Math.min(bytes, view.byteLength - at - 8) };
    at += 8 + bytes + (bytes % 2);
  }
  return found["fmt "]?.bytes < 16 ? {} : found;
}

function rateOf(bytes) {
  const view = new DataView(bytes);
  const format = chunksOf(view)["fmt "];
  if (format) return view.getUint32(format.at + 4, true);
  const isFlac = view.byteLength > 21 && view.getUint32(0) === 0x664c6143; // "fLaC"
  return isFlac ? view.getUint32(18) >>> 12 : null; // STREAMINFO: 20 bits
}
