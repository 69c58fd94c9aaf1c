"""A run behind HTTP: OpenAI's endpoints and two pages. The one file here that opens a socket.

    POST /v1/chat/completions   POST /v1/completions   GET /v1/models   GET /health      GET /   GET /rate (rating.py)

A browser on this machine may have any page open, so a page of another origin must not get in: bodies have to say that
they are JSON, which other origins may not send unasked, and on 127.0.0.1 the Host header has to be a local name.
With a key, whatever the model or a rating is asked for needs `Authorization: Bearer KEY`; pages take it from `/#KEY`.
"""

import asyncio
import hmac
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gpt.serving.batching import Batch, Job
from gpt.serving.protocol import (
    ApiError,
    ChatBody,
    CompletionBody,
    Reply,
    Served,
    chat_job,
    completion_job,
    parse,
)
from gpt.serving.rating import Rating, RatingBody
from gpt.serving.scheduler import Answer, Limits, NoAnswer, Scheduler

LOCAL = ("127.0.0.1", "localhost", "::1")
OPEN_PATHS = ("/", "/rate", "/health")  # without the key: pages as they lie in the package, and whether it runs
PAGE_HEADERS = {  # a page may load nothing, talk to this server alone, and be framed by nobody
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


def make_app(
    served: Served, *, limits: Limits | None = None, rating: Rating | None = None, is_local: bool = True, key: str = ""
) -> FastAPI:
    """The application; `app.state.scheduler` is its queue. is_local: only requests to a local name are answered. A key
    is asked of everybody but for the bare pages and /health."""
    limits = limits or Limits()
    scheduler = Scheduler(Batch(served.model, served.tokenizer), limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.loop, work = asyncio.get_running_loop(), asyncio.create_task(scheduler.run())
        yield
        work.cancel()

    # Without FastAPI's own pages, which need a CDN.
    app = FastAPI(lifespan=lifespan, dependencies=[Depends(asks_for(key))], docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    app.state.scheduler = scheduler
    if is_local:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL, "[::1]"])
    add_errors(app)
    add_pages(app, rating, limits)

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "running": len(scheduler.at_work), "waiting": len(scheduler.waiting)}

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [served.card()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, object]:
        if name != served.name:
            raise ApiError(404, f"the model {name!r} is not here: there is {served.name!r}", None, "model_not_found")
        return served.card()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await read_body(request, ChatBody, limits)
        job, n_ignored = chat_job(body, served)
        return await reply(request, body, Reply(job, served.name, n_ignored), scheduler)

    @app.post("/v1/completions")
    async def completion(request: Request) -> Response:
        body = await read_body(request, CompletionBody, limits)
        return await reply(request, body, Reply(completion_job(body, served), served.name), scheduler)

    return app


# ---- one request ----


def asks_for(key: str) -> Callable[[Request], None]:
    """What each request has to pass: 401 for who does not know the key, if there is one."""
    wanted = f"Bearer {key}".encode()

    def check_key(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")  # the bytes as they came
        # In constant time: how long the comparison takes tells nothing about the key.
        if key and request.url.path not in OPEN_PATHS and not hmac.compare_digest(given, wanted):
            message = "this server asks for its key: send Authorization: Bearer KEY, or open the page as /#KEY"
            raise ApiError(401, message, code="invalid_api_key")

    return check_key


async def read_body(request: Request, kind: type[BaseModel], limits: Limits) -> BaseModel:
    """The JSON body as `kind`. Raises ApiError: 415, 413, 408, 400."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send JSON, with the header Content-Type: application/json")
    data = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():  # never more than the limit in memory, whatever Content-Length says
                data += part
                if len(data) > limits.max_body:
                    raise ApiError(413, f"the body has more than {limits.max_body} bytes: shorten it")
    except TimeoutError:
        raise ApiError(408, f"the body was not here after {limits.body_seconds:g} seconds: send it at once") from None
    return parse(bytes(data), kind)


async def reply(request: Request, body: ChatBody | CompletionBody, form: Reply, scheduler: Scheduler) -> Response:
    """The answer to one request, streamed or whole. Raises ApiError (503) if there is no place or it breaks off."""
    answer = enter(form.job, scheduler)
    watch = asyncio.create_task(leave_when_gone(request, answer, scheduler))
    request.state.watch = watch  # asyncio itself holds no task alive
    if body.stream:
        wants_usage = bool((body.stream_options or {}).get("include_usage"))
        return StreamingResponse(stream(answer, form, wants_usage), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store"})  # fmt: skip
    try:
        text = "".join([piece async for piece in answer.grow()])
    except NoAnswer as error:
        raise ApiError(error.status, str(error)) from None
    return JSONResponse(form.whole(text, answer.n_tokens, answer.stopped_by))


def enter(job: Job, scheduler: Scheduler) -> Answer:
    try:
        return scheduler.enter(job)
    except NoAnswer as error:
        raise ApiError(error.status, str(error), code="overloaded") from None


async def leave_when_gone(request: Request, answer: Answer, scheduler: Scheduler) -> None:
    """Free the answer's place as soon as the connection is closed or the reply is complete, whatever else happens."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scheduler.leave(answer)


async def stream(answer: Answer, form: Reply, wants_usage: bool) -> AsyncIterator[str]:
    """Server-sent events: a chunk for each piece, the usage if it is wanted, [DONE]; or an error, and no [DONE]."""
    try:
        if form.job.template is not None:
            yield event(form.chunk("", is_first=True))
        async for piece in answer.grow():
            if piece or answer.stopped_by:
                yield event(form.chunk(piece, answer.stopped_by))
    except NoAnswer as error:
        yield event(ApiError(error.status, str(error)).body)
        return
    if wants_usage:
        yield event(form.usage_chunk(answer.n_tokens))
    yield "data: [DONE]\n\n"


def event(value: dict[str, object]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape."""

    def show(error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, {"Retry-After": "1"} if error.status == 503 else {})

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return show(error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        why = {404: "there is nothing here", 405: "another method is needed here"}.get(error.status_code, error.detail)
        return show(ApiError(error.status_code, f"{request.method} {request.url.path}: {why}"))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return show(ApiError(500, "the server has failed at this request; its terminal says where"))


# ---- pages ----


def add_pages(app: FastAPI, rating: Rating | None, limits: Limits) -> None:
    """`/`, a chat; `/rate` and what it asks for, if there is something to rate."""

    def page(name: str) -> Callable[[], HTMLResponse]:
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        return lambda: HTMLResponse(text, headers=PAGE_HEADERS)

    app.get("/")(page("chat.html"))
    if rating is None:
        return
    app.get("/rate")(page("rate.html"))

    @app.get("/rate/pairs/{place}")
    def pair(place: str) -> dict[str, object]:
        return rating.pair(rating.first_open() if place == "next" else read_place(place, rating))

    @app.post("/rate/pairs/{place}")
    async def rate(place: str, request: Request) -> dict[str, object]:
        body = await read_body(request, RatingBody, limits)
        return rating.save(read_place(place, rating), body)

    @app.get("/rate/summary")
    def summary() -> dict[str, object]:
        return rating.summary()


def read_place(text: str, rating: Rating) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < len(rating.pairs)):
        raise ApiError(404, f"there is no pair {text[:20]!r}: use 0 to {len(rating.pairs) - 1}")
    return int(text)


# ---- the process ----


class Server(uvicorn.Server):
    """uvicorn waits at Ctrl-C for all replies to be complete; here the answers at work end first, with an error."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        state = self.config.app.state
        if hasattr(state, "loop"):  # set once the server has started
            state.loop.call_soon_threadsafe(state.scheduler.stop)


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections; port 0 takes a free one. Raises ValueError if it cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen on {host} port {port}: {error}: choose another --port") from None


def make_server(app: FastAPI) -> Server:
    """For `make_server(app).run(sockets=[listen(host, port)])`, which returns at Ctrl-C."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=5)
    return Server(config)
