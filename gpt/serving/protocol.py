"""OpenAI's protocol: a request's body -> a job, a job -> the replies, and errors in their shape.

    {"messages": [{"role": "user", "content": INSTRUCTION}], "input": INPUT, "temperature": 0, "max_tokens": 100}

`input` is ours: the text that the instruction is to be done with. What would change the answer and cannot be honoured
is refused (UNSUPPORTED); other fields that are not known are ignored, as clients send many.

Source: OpenAI's API reference, "Chat Completions" and "Completions".
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gpt.model.generate import Sampling, prompt_room
from gpt.model.gpt2 import GPT
from gpt.serving.batching import Job
from gpt.text.prompts import format_prompt, get_template
from gpt.text.tokenizer import Tokenizer

MOST_BYTES_OF_A_TOKEN = 128  # the longest of GPT-2's tokens; text is measured by it before it is encoded
FINISH_REASONS = {"end_of_text": "stop", "stop_string": "stop", "max_new_tokens": "length", "context": "length"}
# field -> values that ask for nothing, beside null
UNSUPPORTED = {
    "n": [1], "best_of": [1], "echo": [False], "suffix": [""], "logprobs": [False, 0], "top_logprobs": [0],
    "presence_penalty": [0], "frequency_penalty": [0], "logit_bias": [{}], "tools": [[]], "functions": [[]],
    "response_format": [{"type": "text"}],
}  # fmt: skip


class ApiError(Exception):
    """An answer that is an error, in OpenAI's shape."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


# ---- bodies ----


def join_parts(content: object) -> object:
    """A list of text parts, `[{"type": "text", "text": ...}]`, as one text; all else as it is."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def one_of(value: object) -> object:
    """`"a"` and `["a"]` are the same prompt."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Body(BaseModel):
    """What both endpoints read."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Annotated[list[str] | None, BeforeValidator(as_list)] = None
    stream: bool | None = None
    stream_options: dict[str, object] | None = None


class Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    role: str
    content: Annotated[str, BeforeValidator(join_parts)]
    input: str | None = None


class ChatBody(Body):
    messages: list[Message] = Field(min_length=1)
    input: str | None = None  # of the last message
    max_completion_tokens: int | None = None  # the newer name of max_tokens


class CompletionBody(Body):
    prompt: Annotated[str, BeforeValidator(one_of)]


def parse(data: bytes, kind: type[BaseModel]) -> BaseModel:
    """The body as `kind`. Raises ApiError (400) that names the field at fault."""
    try:
        body = kind.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)[0]
        param = ".".join(map(str, found["loc"])) or None
        raise ApiError(400, f"{param or 'the body'}: {found['msg']}", param) from None
    for name, neutral in UNSUPPORTED.items():
        if (value := (body.model_extra or {}).get(name)) is not None and value not in neutral:
            raise ApiError(400, f"{name} is not supported here: leave it out", name, "unsupported_parameter")
    return body


# ---- body -> job ----


@dataclass(frozen=True)
class Served:
    """What is served, and how its prompts are made."""

    model: GPT
    tokenizer: Tokenizer
    name: str
    template: str = "alpaca"
    turns: bool = False  # the run was trained on conversations, so earlier turns belong to the prompt
    max_new_tokens: int = 256  # where a request does not say
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970

    def __post_init__(self) -> None:
        get_template(self.template)  # ValueError for a name that is not known
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} leaves nothing to generate: use 1 or more")

    def card(self) -> dict[str, object]:
        """The entry of /v1/models."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "gpt",
            "context_length": self.model.config.context_length,
            "template": self.template,
            "turns": self.turns,
        }


def chat_job(body: ChatBody, served: Served) -> tuple[Job, int]:
    """The job, and how many of the messages are not in its prompt. Raises ApiError (400, 404)."""
    settings = read_settings(body, served, body.max_completion_tokens)
    for number, message in enumerate(body.messages):
        if message.role not in ("user", "assistant"):
            raise ApiError(400, f"this model knows the roles user and assistant, not {message.role!r}",
                           f"messages.{number}.role")  # fmt: skip
    *earlier, last = body.messages
    if last.role != "user" or not last.content.strip():
        raise ApiError(400, "the last message must be the user's, with an instruction in it", "messages")
    if body.input is not None:
        last = last.model_copy(update={"input": body.input})
    blocks = [encode_message(message, served) for message in [*earlier, last]]
    room = prompt_room(served.model, settings["max_new_tokens"])
    kept = blocks if served.turns else blocks[-1:]
    while sum(map(len, kept)) > room and len(kept) > 1:  # the oldest turn goes first, with its answer
        n_dropped = next(n for n in range(1, len(kept)) if body.messages[len(blocks) - len(kept) + n].role == "user")
        kept = kept[n_dropped:]
    prompt = [i for block in kept for i in block]
    return Job(check_length(prompt, room), template=served.template, **settings), len(blocks) - len(kept)


def completion_job(body: CompletionBody, served: Served) -> Job:
    """A plain text to go on with, without a template; an empty one is the beginning of a document."""
    settings = read_settings(body, served)
    prompt = encode(body.prompt, served, "prompt") or [served.tokenizer.eot_id]
    return Job(check_length(prompt, prompt_room(served.model, settings["max_new_tokens"])), **settings)


def encode_message(message: Message, served: Served) -> list[int]:
    """A turn as in training: the user's with the template around it, the model's with the end of text behind it."""
    if message.role == "assistant":
        return [*encode(message.content, served, "messages"), served.tokenizer.eot_id]
    entry = {"instruction": message.content, "input": message.input or "", "output": ""}
    return encode(format_prompt(entry, served.template), served, "messages")


def encode(text: str, served: Served, param: str) -> list[int]:
    context = served.model.config.context_length
    if len(text) > context * MOST_BYTES_OF_A_TOKEN:  # encoding takes time: not for what cannot fit
        raise ApiError(400, f"{len(text)} characters cannot fit the context of {context} tokens: shorten the text",
                       param, "context_length_exceeded")  # fmt: skip
    return served.tokenizer.encode(text)


def check_length(prompt: list[int], room: int) -> list[int]:
    if len(prompt) > room:
        raise ApiError(400, f"the prompt has {len(prompt)} tokens and there is room for {room} beside its answer: "
                       "shorten it or ask for fewer max_tokens", "messages", "context_length_exceeded")  # fmt: skip
    return prompt


def read_settings(body: Body, served: Served, max_completion_tokens: int | None = None) -> dict[str, object]:
    """What a Job needs beside its prompt. A seed that is not given is drawn, and told in the reply."""
    if body.model not in (None, served.name):
        raise ApiError(404, f"the model {body.model!r} is not here: this server has {served.name!r}", "model",
                       "model_not_found")  # fmt: skip
    asked = max_completion_tokens if max_completion_tokens is not None else body.max_tokens
    context = served.model.config.context_length
    if asked is not None and not 1 <= asked <= context:
        raise ApiError(400, f"max_tokens {asked}: use 1 to {context}, the context of the model", "max_tokens")
    stops = tuple(body.stop or ())
    if len(stops) > 4 or not all(1 <= len(stop) <= 200 for stop in stops):
        raise ApiError(400, "stop: use up to 4 strings of 1 to 200 characters", "stop")
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    try:
        sampling = Sampling(body.temperature or 0.0, body.top_k, body.top_p, seed)
    except ValueError as error:
        raise ApiError(400, str(error), str(error).split()[0]) from None  # each begins with the name of its field
    return {"max_new_tokens": asked or min(served.max_new_tokens, context), "sampling": sampling, "stops": stops}


# ---- job -> reply ----


@dataclass(frozen=True)
class Reply:
    """The JSON objects that answer one request, whole or in chunks."""

    job: Job
    model: str
    n_ignored: int = 0  # messages that are not in the prompt
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970

    def envelope(self, choices: Sequence[dict], is_chunk: bool) -> dict[str, object]:
        is_chat = self.job.template is not None
        return {
            "id": ("chatcmpl-" if is_chat else "cmpl-") + self.id,
            "object": ("chat.completion" + ".chunk" * is_chunk) if is_chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
        }

    def facts(self, n_tokens: int) -> dict[str, object]:
        """What stands in the last object: the counts, and ours, the seed that gives this answer again."""
        n_prompt = len(self.job.prompt)
        usage = {"prompt_tokens": n_prompt, "completion_tokens": n_tokens, "total_tokens": n_prompt + n_tokens}
        return {"usage": usage} | self.ours()

    def ours(self) -> dict[str, object]:
        ignored = {"ignored_messages": self.n_ignored} if self.job.template is not None else {}
        return {"seed": self.job.sampling.seed} | ignored

    def choice(self, content: dict[str, object], stopped_by: str | None) -> dict[str, object]:
        return {"index": 0, **content, "finish_reason": FINISH_REASONS.get(stopped_by), "logprobs": None}

    def whole(self, text: str, n_tokens: int, stopped_by: str) -> dict[str, object]:
        is_chat = self.job.template is not None
        content = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        return self.envelope([self.choice(content, stopped_by)], is_chunk=False) | self.facts(n_tokens)

    def chunk(self, piece: str, stopped_by: str | None = None, is_first: bool = False) -> dict[str, object]:
        """A piece of the text; the first of a chat says whose it is, the last why it ended, and our facts."""
        delta = ({"role": "assistant"} if is_first else {}) | ({"content": piece} if piece or is_first else {})
        content = {"delta": delta} if self.job.template is not None else {"text": piece}
        chunk = self.envelope([self.choice(content, stopped_by)], is_chunk=True)
        return chunk | self.ours() if stopped_by else chunk

    def usage_chunk(self, n_tokens: int) -> dict[str, object]:
        """The one that `stream_options: {"include_usage": true}` asks for."""
        return self.envelope([], is_chunk=True) | self.facts(n_tokens)
