// Runs on the audio thread: hands on what the microphone gives, the mean of its channels, uncompressed.

class Capture extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length) {
      const mean = (i) => channels.reduce((sum, part) => sum + part[i], 0) / channels.length;
      this.port.postMessage(channels[0].map((_, i) => mean(i)));
    }
    return true;
  }
}

registerProcessor("capture", Capture);
