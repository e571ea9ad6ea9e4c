"""A FastAPI application that does nothing: what the framework alone costs, to compare KATO with."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Observation(BaseModel):
    """The body of an observe."""

    strings: list[str] = []
    vectors: list[list[float]] = []
    emotives: dict[str, float] = {}
    metadata: dict[str, Any] = {}
    unique_id: str | None = None


class Batch(BaseModel):
    """The body of an observe-sequence."""

    observations: list[Observation]
    learn_after_each: bool = False
    learn_at_end: bool = False
    clear_stm_between: bool = False


class Nothing(BaseModel):
    """The answer to a request without a body."""

    stm: list[list[str]] = [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"], ["i", "j"]]


@app.post("/observation", response_model=Observation)
async def observation(body: Observation) -> Observation:
    """The body back."""
    return body


@app.post("/batch", response_model=Batch)
async def batch(body: Batch) -> Batch:
    """The body back."""
    return body


@app.get("/nothing", response_model=Nothing)
async def nothing() -> Nothing:
    """A short answer."""
    return Nothing()


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
