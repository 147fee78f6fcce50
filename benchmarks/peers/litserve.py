"""LitServe: processes of its own for the model, fed through queues."""

import sys

import litserve

from benchmarks.peers import answered, loaded


class Extracting(litserve.LitAPI):
    def setup(self, device):
        self.predictor = loaded()

    def decode_request(self, request):
        return request["image"].file.read(), request["audio"].file.read()

    def predict(self, files):
        return answered(self.predictor, *files)

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    server = litserve.LitServer(Extracting(api_path="/extract"), accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
