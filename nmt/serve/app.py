"""The routes of the server: the page with its files, and the JSON that it is made from."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.resources import files
from mimetypes import guess_type
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route

from nmt import __version__
from nmt.cli.configs import ServeConfig
from nmt.config import suggest
from nmt.serve import handlers
from nmt.serve.model_thread import InferenceJob, ModelWorker
from nmt.serve.models import ServedModel
from nmt.serve.schemas import (
    AttentionRequest,
    AttentionResponse,
    ErrorResponse,
    Limits,
    ModelInfo,
    ModelsResponse,
    StreamEvent,
    TranslateRequest,
    TranslateResponse,
)
from nmt.serve.security import SecurityMiddleware, refusal

FILES = {
    "": ("nmt.serve", "page.html"),
    "page.css": ("nmt.serve", "page.css"),
    "page.js": ("nmt.serve", "page.js"),
    "icon.svg": ("nmt.serve", "icon.svg"),
    "report.css": ("nmt.evaluation.report", "page.css"),
    "matrix.js": ("nmt.evaluation.report", "matrix.js"),
}
"""The files of the page, each with its package and name; the last ones are shared with the report."""

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "the body is not JSON",
        403: "a page of another origin, or an unknown Host",
        408: "the request came too slowly",
        413: "more than one of the limits",
        415: "Content-Type is not application/json",
        422: "a value that is not allowed",
        503: "too many wait: ask again after the seconds of Retry-After; or it is stopped",
        504: "it would have taken longer than timeout",
    }.items()
}


def make_app(served: Sequence[ServedModel], config: ServeConfig, worker: ModelWorker) -> FastAPI:
    """Return the application.

    Args:
        served: the models, the first of which is meant where none is named.
        config: the limits.
        worker: where they run.
    """
    app = FastAPI(title="nmt.serve", version=__version__, docs_url=None, redoc_url=None)
    app.exception_handlers |= {RequestValidationError: _invalid, HTTPException: _refused, Exception: _defect}
    app.add_middleware(SecurityMiddleware, config=config, ended=worker.ended)
    about = ModelsResponse(
        version=__version__,
        models=[ModelInfo(**one.info()) for one in served],
        limits=Limits.model_validate(config, from_attributes=True),
    )
    tasks = RequestHandlers(served, config, worker)

    @app.get("/api/models")
    async def models() -> ModelsResponse:
        """The models, and what a request may be at most."""
        return about

    @app.post("/api/translate", response_model=TranslateResponse, responses=ERRORS)
    async def translate(body: TranslateRequest, request: Request) -> Response:
        """Translations with their scores, subwords and alignments."""
        return await tasks.answer(request, tasks.translation(body))

    @app.post(
        "/api/stream",
        response_model=StreamEvent,
        responses={**ERRORS, 200: {"description": "lines of JSON (application/x-ndjson), each a `StreamEvent`"}},
    )
    async def stream(body: TranslateRequest) -> Response:
        """The same as it comes: one line of JSON for each step; the last holds `result`, or `error`."""
        return tasks.stream(body)

    @app.post("/api/attention", response_model=AttentionResponse, responses=ERRORS)
    async def attention(body: AttentionRequest, request: Request) -> Response:
        """The attention to the source with which a given translation is predicted, of all layers and heads or one."""
        return await tasks.answer(request, tasks.attention(body))

    for path, (package, name) in FILES.items():
        file = Response(files(package).joinpath(name).read_bytes(), media_type=guess_type(name)[0])
        app.router.routes.append(Route(f"/{path}", file, methods=["GET"]))
    return app


class RequestHandlers:
    """Turns requests into work for the model's thread, and its results into answers."""

    def __init__(self, served: Sequence[ServedModel], config: ServeConfig, worker: ModelWorker) -> None:
        self.served, self.config, self.worker = served, config, worker

    def translation(self, body: TranslateRequest, tell: handlers.Tell | None = None) -> Callable[[InferenceJob], bytes]:
        """Return the work of a request for translations; raise HTTPException for one that cannot be answered."""
        one = self._named(body.model)
        self._check(one, body)
        return lambda job: handlers.as_json(handlers.translate(one, body, job, tell))

    def attention(self, body: AttentionRequest) -> Callable[[InferenceJob], bytes]:
        """Return the work of a request for attention; raise HTTPException for one that cannot be answered."""
        one = self._named(body.model)
        for name in ("source", "target"):
            self._check_characters(name, getattr(body, name) or "")
        return lambda job: handlers.as_json(handlers.attention_response(one, body, self.config.max_weights))

    def _named(self, name: str | None) -> ServedModel:
        for one in self.served:
            if name is None or one.name == name:
                return one
        raise HTTPException(422, f"model={str(name)[:100]}: there is {', '.join(one.name for one in self.served)}")

    def _check(self, one: ServedModel, body: TranslateRequest) -> None:
        if (body.text is None) == (body.lines is None):
            raise HTTPException(422, "text or lines must be given, and not both")
        lines = handlers.request_sentences(body)
        if len(lines) > self.config.max_sentences:
            raise HTTPException(
                413, f"{len(lines)} sentences are more than {self.config.max_sentences} (max_sentences)"
            )
        for number, line in enumerate(lines):
            self._check_characters(f"lines.{number}", line)
            if "\n" in line:
                raise HTTPException(422, f"lines.{number}: holds a line feed; text is cut there, lines are not")
        for name in ("beam_size", "n_best"):
            if (getattr(body, name) or 1) > self.config.max_beam:
                raise HTTPException(422, f"{name}={getattr(body, name)}: at most {self.config.max_beam} (max_beam)")
        try:
            handlers.search_config(one, body)
        except ValueError as error:
            raise HTTPException(422, str(error).replace("search.", "")) from None

    def _check_characters(self, name: str, text: str) -> None:
        limit = self.config.max_sentence_chars
        if len(text) > limit:
            raise HTTPException(413, f"{name}: {len(text):,} characters are more than {limit:,} (max_sentence_chars)")

    async def answer(self, request: Request, run: Callable[[InferenceJob], bytes]) -> Response:
        """Answer with what comes of the work; it is given up when the client leaves or its time is over."""
        job = self.worker.submit(run)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((job.future, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            job.stop()
        return Response(self.worker.result(job), media_type="application/json")

    def stream(self, body: TranslateRequest) -> Response:
        """Answer the same line by line, as it comes."""
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

        def tell(number: int, text: str) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, handlers.as_json({"line": number, "text": text}))

        job = self.worker.submit(self.translation(body, tell))
        job.future.add_done_callback(lambda _: lines.put_nowait(None))

        async def content() -> AsyncIterator[bytes]:
            try:
                while (line := await lines.get()) is not None:
                    yield line + b"\n"
                yield b'{"result":' + self.worker.result(job) + b"}\n"
            except HTTPException as error:
                yield bytes(refusal(error).body) + b"\n"
            finally:
                job.stop()

        return StreamingResponse(content(), media_type="application/x-ndjson")


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        error.detail = f"{request.url.path[:100]}: there is / and /openapi.json, which says what else"
    if error.status_code == 400:
        error.detail = "the body is not JSON in UTF-8"
    return refusal(error)


async def _defect(request: Request, error: Exception) -> Response:
    return refusal(HTTPException(500, "a defect of the program; its log says more"))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return refusal(HTTPException(*_status_and_text(error)))


def _status_and_text(error: RequestValidationError) -> tuple[int, str]:
    if isinstance(error.body, bytes):  # FastAPI parses JSON only; a form of another page can be of no such type
        return 415, "the body must be JSON, with the header Content-Type: application/json"
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")[:100] or "the body"
    if first["type"] == "json_invalid":
        return 400, f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    if first["type"] == "missing":
        return 422, f"{place}: must be given"
    if first["type"] == "extra_forbidden":
        known = [*TranslateRequest.model_fields, *AttentionRequest.model_fields]
        near = suggest(str(first["loc"][-1]), known)
        return 422, f"{place}: unknown" + (f"; did you mean {near}?" if near else "; see /openapi.json")
    shown = json.dumps(first.get("input"), default=str)
    value = f"={shown}" if len(shown) <= 40 else ""
    message = str(first["msg"])
    return 422, f"{place}{value}: {message[:1].lower()}{message[1:200]}"
