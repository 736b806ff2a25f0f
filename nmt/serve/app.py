"""The addresses of the server: the page with its files, and the JSON that it is made from."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from nmt import __version__
from nmt.cli.configs import ServeConfig
from nmt.options import nearest
from nmt.runtime.memory import is_oom_error
from nmt.serve import handlers
from nmt.serve.model_thread import BusyError, ClosedError, Job, StoppedError, Watch, Worker
from nmt.serve.models import AskedWrongError, Served, named
from nmt.serve.schemas import Attention, AttentionRequest, Failed, Models, Streamed, Translated, TranslateRequest
from nmt.serve.security import STOPPING, Guard

LIMITS = ("max_bytes", "max_lines", "max_characters", "max_beam", "max_weights", "max_seconds", "max_waiting")
FILES = {
    "": ("nmt.serve", "page.html", "text/html"),
    "page.css": ("nmt.serve", "page.css", "text/css"),
    "page.js": ("nmt.serve", "page.js", "text/javascript"),
    "icon.svg": ("nmt.serve", "icon.svg", "image/svg+xml"),
    "report.css": ("nmt.evaluation.report", "page.css", "text/css"),
    "matrix.js": ("nmt.evaluation.report", "matrix.js", "text/javascript"),
}
"""What the page consists of: package, file and type; the last ones are shared with the report."""

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Failed, "description": "the body is not JSON"},
    403: {"model": Failed, "description": "a page of another origin, or an unknown Host"},
    408: {"model": Failed, "description": "the request came too slowly"},
    413: {"model": Failed, "description": "more than one of the limits"},
    415: {"model": Failed, "description": "Content-Type is not application/json"},
    422: {"model": Failed, "description": "a value that is not allowed"},
    503: {
        "model": Failed,
        "description": "too many wait: ask again after the seconds of Retry-After; or it is stopped",
    },
    504: {"model": Failed, "description": "it would have taken longer than max_seconds"},
}


def make_app(served: Sequence[Served], config: ServeConfig, worker: Worker) -> FastAPI:
    """The application.

    Args:
        served: the models, the first of which is meant where none is named.
        config: the limits.
        worker: where they run.
    """
    app = FastAPI(title="nmt.serve", version=__version__, docs_url=None, redoc_url=None)
    about = {
        "version": __version__,
        "models": [one.about() for one in served],
        "limits": {name: getattr(config, name) for name in LIMITS},
    }
    tasks = Tasks(served, config, worker)

    @app.get("/api/models", response_model=Models)
    async def models() -> Response:
        """The models, and what a request may be at most."""
        return JSONResponse(about)

    @app.post("/api/translate", response_model=Translated, responses=ERRORS)
    async def translate(asked: TranslateRequest, request: Request) -> Response:
        """Translations with their scores, subwords and alignments."""
        return await tasks.answer(request, tasks.translation(asked))

    @app.post(
        "/api/stream",
        response_model=Streamed,
        responses={**ERRORS, 200: {"description": "lines of JSON (application/x-ndjson), each a `Streamed`"}},
    )
    async def stream(asked: TranslateRequest) -> Response:
        """The same as it comes: one line of JSON for each step; the last holds `result`, or `error`."""
        return tasks.stream(asked)

    @app.post("/api/attention", response_model=Attention, responses=ERRORS)
    async def attention(asked: AttentionRequest, request: Request) -> Response:
        """The attention to the source with which a given translation is predicted, of all layers and heads or one."""
        return await tasks.answer(request, tasks.attention(asked))

    for name, place in FILES.items():
        app.add_api_route(f"/{name}", _file(*place), include_in_schema=False)
    _tell_errors(app)
    names, ended = [config.host, *config.names], worker.ended
    app.add_middleware(Guard, names=names, max_bytes=config.max_bytes, seconds=config.max_seconds, ended=ended)
    return app


class Tasks:
    """Requests as work for the model's thread, and its results as answers."""

    def __init__(self, served: Sequence[Served], config: ServeConfig, worker: Worker) -> None:
        self.served, self.config, self.worker = served, config, worker

    def translation(self, asked: TranslateRequest, tell: handlers.Tell | None = None) -> Callable[[Watch], bytes]:
        """The work that a request for translations is. Raises AskedWrongError."""
        one = named(self.served, asked.model)
        self._check(one, asked)
        return lambda watch: handlers.as_json(handlers.translate(one, asked, watch, tell))

    def attention(self, asked: AttentionRequest) -> Callable[[Watch], bytes]:
        """The work that a request for attention is. Raises AskedWrongError."""
        one = named(self.served, asked.model)
        for name in ("source", "target"):
            self._check_characters(name, getattr(asked, name) or "")

        def run(watch: Watch) -> bytes:
            return handlers.as_json(
                handlers.attend(one, asked, *handlers.check_attention(one, asked, self.config.max_weights))
            )

        return run

    def _check(self, one: Served, asked: TranslateRequest) -> None:
        if (asked.text is None) == (asked.lines is None):
            raise AskedWrongError("text or lines must be given, and not both")
        lines = handlers.lines_of(asked)
        if len(lines) > self.config.max_lines:
            raise AskedWrongError(f"{len(lines)} sentences are more than {self.config.max_lines} (max_lines)", 413)
        for number, line in enumerate(lines):
            self._check_characters(f"lines.{number}", line)
            if "\n" in line:
                raise AskedWrongError(f"lines.{number}: holds a line feed; text is cut there, lines are not")
        for name in ("beam", "num_best"):
            if (getattr(asked, name) or 1) > self.config.max_beam:
                raise AskedWrongError(f"{name}={getattr(asked, name)}: at most {self.config.max_beam} (max_beam)")
        try:
            handlers.search_config(one, asked)
        except ValueError as error:
            raise AskedWrongError(str(error).replace("search.", "")) from None

    def _check_characters(self, name: str, text: str) -> None:
        most = self.config.max_characters
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise AskedWrongError(f"{name}: holds half of a surrogate pair, which is no character") from None
        if len(text) > most:
            raise AskedWrongError(f"{name}: {len(text):,} characters are more than {most:,} (max_characters)", 413)

    async def answer(self, request: Request, run: Callable[[Watch], bytes]) -> Response:
        """What came of the work; it is given up when the client leaves or its time is over."""
        job = self.worker.submit(run)
        future = _future(job)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await _first(job, future, gone)
            if future.cancelled() or not future.done():
                raise StoppedError
            return Response(future.result(), media_type="application/json")
        except StoppedError:
            return _stopped(job, self.config.max_seconds)
        finally:
            gone.cancel()
            job.stop()

    def stream(self, asked: TranslateRequest) -> Response:
        """The same line by line, as it comes."""
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

        def tell(number: int, text: str) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, {"line": number, "text": text})

        job = self.worker.submit(self.translation(asked, tell))
        return StreamingResponse(self._streamed(job, lines), media_type="application/x-ndjson")

    async def _streamed(self, job: Job, lines: "asyncio.Queue[dict[str, Any]]") -> AsyncIterator[bytes]:
        future = _future(job)
        try:
            while True:
                coming = asyncio.ensure_future(lines.get())
                await _first(job, future, coming)
                if not coming.done():
                    coming.cancel()
                    break
                yield handlers.as_json(coming.result()) + b"\n"
            if future.cancelled() or not future.done():
                raise StoppedError
            yield b'{"result":' + future.result() + b"}\n"
        except StoppedError:
            yield bytes(_stopped(job, self.config.max_seconds).body) + b"\n"
        except Exception as error:
            if not _is_expected(error):
                raise
            yield bytes(_failure(error).body) + b"\n"
        finally:
            job.stop()


def _future(job: Job) -> "asyncio.Future[bytes]":
    """What will come of a job; nothing is logged when nobody asks any more."""
    future = asyncio.wrap_future(job.future)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def _first(job: Job, *futures: "asyncio.Future[Any]") -> None:
    """Waits until one of them is done, or the job's time is over."""
    await asyncio.wait(futures, timeout=job.watch.left, return_when=asyncio.FIRST_COMPLETED)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(status: int, text: str, **headers: str) -> Response:
    content = handlers.as_json({"error": text})  # of ASCII only: the text may quote what no encoding can hold
    return Response(content, status, headers or None, media_type="application/json")


def _stopped(job: Job, seconds: float) -> Response:
    if job.watch.left:  # neither it nor others took too long
        return _error(503, STOPPING)
    if job.watch.begun:
        text = f"not done within {seconds:g} s (max_seconds): ask for fewer or shorter sentences or a smaller beam"
        return _error(504, text)
    return _error(503, f"others were served for {seconds:g} s (max_seconds): ask again", **{"Retry-After": "1"})


def _is_expected(error: Exception) -> bool:
    return isinstance(error, AskedWrongError | BusyError | ClosedError) or is_oom_error(error)


def _failure(error: Exception) -> Response:
    if isinstance(error, AskedWrongError):
        return _error(error.status, str(error))
    if isinstance(error, BusyError):
        text = f"too many requests wait already: ask again in {error.seconds} s"
        return _error(503, text, **{"Retry-After": str(error.seconds)})
    if isinstance(error, ClosedError):
        return _error(503, STOPPING)
    if is_oom_error(error):
        return _error(503, "not enough memory for this request: ask for less", **{"Retry-After": "1"})
    return _error(500, "a defect of the program; its log says more")


def _tell_errors(app: FastAPI) -> None:
    """Every error as JSON with one sentence."""

    async def failure(request: Request, error: Exception) -> Response:
        return _failure(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error)

    async def told(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return _error(404, f"{request.url.path[:100]}: there is / and /openapi.json, which says what else")
        if error.status_code == 400:
            return _error(400, "the body is not JSON in UTF-8")
        return _error(error.status_code, str(error.detail))

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, told)
    for kind in (AskedWrongError, BusyError, ClosedError, Exception):
        app.add_exception_handler(kind, failure)


def _invalid(error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
    if first["type"] == "json_invalid":
        return _error(400, f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}")
    if first["type"] == "missing":
        return _error(422, f"{place}: must be given")
    if first["type"] == "extra_forbidden":
        known = [*TranslateRequest.model_fields, *AttentionRequest.model_fields]
        near = nearest(str(first["loc"][-1]), known)
        return _error(422, f"{place[:100]}: unknown" + (f"; did you mean {near}?" if near else "; see /openapi.json"))
    shown = json.dumps(first.get("input"), default=str)
    value = f"={shown}" if len(shown) <= 40 else ""
    message = str(first["msg"])
    return _error(422, f"{place[:100]}{value}: {message[:1].lower()}{message[1:200]}")


def _file(package: str, name: str, kind: str) -> Callable[[], Any]:
    content = files(package).joinpath(name).read_bytes()

    async def file() -> Response:
        return Response(content, media_type=kind)

    return file
