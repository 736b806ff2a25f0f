"""The routes of the server: the page with its files, and the JSON API."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
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
from nmt.inference.interventions import Intervention
from nmt.inference.line_translator import LineTranslator
from nmt.serve import handlers, schemas
from nmt.serve.model_thread import InferenceJob, ModelWorker
from nmt.serve.models import ServedModel
from nmt.serve.schemas import AttentionRequest, TranslateRequest
from nmt.serve.security import SecurityMiddleware, error_response

FILES = {
    "": ("nmt.serve", "page.html"),
    "page.css": ("nmt.serve", "page.css"),
    "page.js": ("nmt.serve", "page.js"),
    "icon.svg": ("nmt.serve", "icon.svg"),
    "report.css": ("nmt.evaluation.report", "page.css"),
    "matrix.js": ("nmt.evaluation.report", "matrix.js"),
}
"""Package and name of each file of the page; the last ones are shared with the report."""

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorResponse, "description": description}
    for status, description in {
        400: "the body is not JSON",
        403: "a page of another origin, or an unknown Host",
        408: "the request was sent too slowly",
        413: "a limit is exceeded",
        415: "Content-Type is not application/json",
        422: "a value is not allowed",
        503: "too many requests are waiting: try again after Retry-After seconds; or the server is being stopped",
        504: "the request took longer than timeout",
    }.items()
}


def make_app(served: Sequence[ServedModel], config: ServeConfig, worker: ModelWorker) -> FastAPI:
    """Return the application that serves the models, the first by default, within the limits of `config`."""
    app = FastAPI(title="nmt.serve", version=__version__, docs_url=None, redoc_url=None)
    app.exception_handlers |= {RequestValidationError: _invalid, HTTPException: _http_error, Exception: _internal_error}
    app.add_middleware(SecurityMiddleware, config=config, stopping=worker.stopping)
    models_response = schemas.ModelsResponse(
        version=__version__,
        models=[schemas.ModelInfo(**model.info()) for model in served],
        limits=schemas.Limits.model_validate(config, from_attributes=True),
    )
    requests = RequestHandlers(served, config, worker)

    @app.get("/api/models")
    async def models() -> schemas.ModelsResponse:
        """The models, and the limits of a request."""
        return models_response

    @app.post("/api/translate", response_model=schemas.TranslateResponse, responses=ERRORS)
    async def translate(body: TranslateRequest, request: Request) -> Response:
        """Translations with their scores, subwords and alignments."""
        return await requests.respond(request, requests.translation_task(body))

    @app.post(
        "/api/stream",
        response_model=schemas.StreamEvent,
        responses={**ERRORS, 200: {"description": "lines of JSON (application/x-ndjson), each a `StreamEvent`"}},
    )
    async def stream(body: TranslateRequest) -> Response:
        """The same while it is translated: one line of JSON for each step; the last holds `result`, or `error`."""
        return requests.stream(body)

    @app.post("/api/attention", response_model=schemas.AttentionResponse, responses=ERRORS)
    async def attention(body: AttentionRequest, request: Request) -> Response:
        """The attention to the source in a forced pass over a translation, of all layers and heads or of one."""
        return await requests.respond(request, requests.attention_task(body))

    for path, (package, name) in FILES.items():
        file = Response(files(package).joinpath(name).read_bytes(), media_type=guess_type(name)[0])
        app.router.routes.append(Route(f"/{path}", file, methods=["GET"]))
    return app


class RequestHandlers:
    """Validation of requests, and their responses from the model's thread."""

    def __init__(self, served: Sequence[ServedModel], config: ServeConfig, worker: ModelWorker) -> None:
        self.served, self.config, self.worker = served, config, worker

    def translation_task(
        self, body: TranslateRequest, on_progress: handlers.ProgressCallback | None = None
    ) -> Callable[[InferenceJob], bytes]:
        """Return the work for a request for translations; raise HTTPException for an invalid one."""
        model = self._find_model(body)
        if (body.text is None) == (body.lines is None):
            raise HTTPException(422, "text or lines must be given, and not both")
        lines, limit = handlers.request_sentences(body), self.config.max_sentences
        if len(lines) > limit:
            raise HTTPException(413, f"{len(lines)} sentences are more than {limit} (max_sentences)")
        for number, line in enumerate(lines):
            self._check_length(f"lines.{number}", line)
            if "\n" in line:
                raise HTTPException(422, f"lines.{number}: holds a line feed; text is split there, lines are not")
        for name in ("prefix", "suffix_of"):
            self._check_length(name, getattr(body, name))
        for name in ("beam_size", "n_best"):
            if (getattr(body, name) or 1) > self.config.max_beam:
                raise HTTPException(422, f"{name}={getattr(body, name)}: at most {self.config.max_beam} (max_beam)")
        for term in (term for entry in (body.glossary or {}).items() for term in entry):
            self._check_length("glossary", term)
        with _refused():
            model = handlers.with_options(model, body)
            LineTranslator(model.translator, model.max_source_tokens, handlers.line_request(body))
        return lambda job: handlers.as_json(handlers.translate(model, body, job, on_progress))

    def attention_task(self, body: AttentionRequest) -> Callable[[InferenceJob], bytes]:
        """Return the work for a request for attention; raise HTTPException for an invalid one."""
        model = self._find_model(body)
        self._check_length("source", body.source)
        self._check_length("target", body.target or "")
        return lambda _: handlers.as_json(handlers.attention_response(model, body, self.config.max_weights))

    def _find_model(self, body: schemas.RequestModel) -> ServedModel:
        name, models = body.model, {model.name: model for model in self.served}
        if name is not None and name not in models:
            raise HTTPException(422, f"model={name[:100]}: must be one of {', '.join(models)}")
        with _refused():
            model = (self.served[0] if name is None else models[name]).into(body.target_lang, body.tag)
        interventions = [Intervention(i.layer, i.head, i.weights) for i in body.interventions]
        with _refused("interventions: "):
            return replace(model, translator=model.translator.intervene(interventions)) if interventions else model

    def _check_length(self, name: str, text: str) -> None:
        limit = self.config.max_sentence_chars
        if len(text) > limit:
            raise HTTPException(413, f"{name}: {len(text):,} characters are more than {limit:,} (max_sentence_chars)")

    async def respond(self, request: Request, task: Callable[[InferenceJob], bytes]) -> Response:
        """Run a task and respond with its result; cancel it when the client disconnects or it times out."""
        job = self.worker.submit(task)
        disconnected = asyncio.ensure_future(_wait_for_disconnect(request))
        try:
            await asyncio.wait((job.future, disconnected), return_when=asyncio.FIRST_COMPLETED)
        finally:
            disconnected.cancel()
            job.cancel()
        return Response(self.worker.result(job), media_type="application/json")

    def stream(self, body: TranslateRequest) -> Response:
        """Respond to a request for translations line by line."""
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()
        to_text = handlers.line_request(body).continuation

        def on_progress(number: int, text: str) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, handlers.as_json({"line": number, "text": to_text(text)}))

        job = self.worker.submit(self.translation_task(body, on_progress))
        job.future.add_done_callback(lambda _: lines.put_nowait(None))

        async def content() -> AsyncIterator[bytes]:
            try:
                while (line := await lines.get()) is not None:
                    yield line + b"\n"
                yield b'{"result":' + self.worker.result(job) + b"}\n"
            except HTTPException as error:
                yield bytes(error_response(error).body) + b"\n"
            finally:
                job.cancel()

        return StreamingResponse(content(), media_type="application/x-ndjson")


@contextlib.contextmanager
def _refused(prefix: str = "") -> Iterator[None]:
    """Raise HTTPException for a ValueError of the block."""
    try:
        yield
    except ValueError as error:
        raise HTTPException(422, prefix + str(error).replace("search.", "")) from None


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        error.detail = f"{request.url.path[:100]}: not found; the page is at /, and /openapi.json describes the API"
    if error.status_code == 400:
        error.detail = "the body is not JSON in UTF-8"
    return error_response(error)


async def _internal_error(request: Request, error: Exception) -> Response:
    return error_response(HTTPException(500, "internal error; see the server's log"))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return error_response(HTTPException(*_status_and_text(error)))


def _status_and_text(error: RequestValidationError) -> tuple[int, str]:
    if isinstance(error.body, bytes):  # FastAPI parses JSON only; a form of another page cannot be of this type
        return 415, "the body must be JSON, with the header Content-Type: application/json"
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "body")[:100] or "the body"
    if first["type"] == "json_invalid":
        return 400, f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    if first["type"] == "missing":
        return 422, f"{field}: must be given"
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])  # it may be a field of the other kind of request
        near = suggest(name, {*TranslateRequest.model_fields, *AttentionRequest.model_fields} - {name})
        return 422, f"{field}: unknown" + (f"; did you mean {near}?" if near else "; see /openapi.json")
    value = json.dumps(first.get("input"), default=str)
    message = str(first["msg"])
    return 422, f"{field}{f'={value}' if len(value) <= 40 else ''}: {message[:1].lower()}{message[1:200]}"
