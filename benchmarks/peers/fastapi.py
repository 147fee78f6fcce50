"""FastAPI behind uvicorn: a plain function, which FastAPI runs in a thread."""

import sys

import uvicorn
from fastapi import FastAPI, UploadFile
from fastapi.responses import JSONResponse

from benchmarks.peers import answered, loaded


def app() -> FastAPI:
    made, predictor = FastAPI(), loaded()

    @made.post("/extract", response_model=None)
    def extract(image: UploadFile, audio: UploadFile) -> JSONResponse:
        return JSONResponse(answered(predictor, image.file.read(), audio.file.read()))

    return made


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    uvicorn.run("benchmarks.peers.fastapi:app", factory=True, port=port, workers=workers, log_level="warning")
