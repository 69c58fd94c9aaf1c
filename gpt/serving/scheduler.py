"""The queue before the model: who is at work, who waits, who is sent away.

Everything here runs in the event loop, so nothing needs a lock; only `Batch.step` runs in a thread of its own, one pass
at a time, and the loop looks at its jobs between two passes.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from gpt.serving.batching import Batch, Job


class NoAnswer(Exception):
    """An answer that cannot be had, or not to its end; the message says why, `status` in HTTP's numbers."""

    def __init__(self, message: str, status: int = 503) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """How much is taken in at a time."""

    max_batch: int = 8  # requests at work together; each has its share of the cache
    max_waiting: int = 64  # requests in the queue; one more is sent away
    max_body: int = 2**20  # bytes of a request
    body_seconds: float = 30.0  # in which a request has to arrive whole, once its header is there

    def __post_init__(self) -> None:
        if self.max_batch < 1 or self.max_waiting < 1 or self.max_body < 1 or not self.body_seconds > 0:
            raise ValueError(f"{self}: use 1 or more of each")


@dataclass(eq=False)
class Answer:
    """What the event loop sees of a job: a copy, renewed after each pass."""

    job: Job
    text: str = ""
    n_tokens: int = 0  # new ids
    stopped_by: str | None = None
    failure: NoAnswer | None = None  # why there is no more of it
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def grow(self) -> AsyncIterator[str]:
        """The text piece by piece, to its end. Raises NoAnswer where that cannot be reached."""
        shown = 0
        while self.stopped_by is None:
            await self.changed.wait()
            self.changed.clear()
            if self.failure:
                raise self.failure
            text = self.text
            yield text[shown:]
            shown = len(text)


class Scheduler:
    """Takes jobs in, in the order of their coming, and keeps the batch going while there are any."""

    def __init__(self, batch: Batch, limits: Limits) -> None:
        self.batch, self.limits = batch, limits
        self.waiting: list[Answer] = []
        self.at_work: list[Answer] = []
        self.wanted = asyncio.Event()  # set while there is something to do
        self.is_stopping = False

    def enter(self, job: Job) -> Answer:
        """A place in the queue. Raises NoAnswer if there is none."""
        if self.is_stopping:
            raise NoAnswer("the server is stopping")
        if len(self.waiting) >= self.limits.max_waiting:
            raise NoAnswer(f"{len(self.waiting)} requests are waiting already: try again later")
        answer = Answer(job)
        self.waiting.append(answer)
        self.wanted.set()
        return answer

    def leave(self, answer: Answer, why: str = "the client has gone", status: int = 503) -> None:
        """Free the place of an answer, wherever it is. Leaving twice, or after the end, does nothing."""
        if answer.stopped_by is None and answer.failure is None:
            answer.failure, answer.job.is_gone = NoAnswer(why, status), True
            answer.changed.set()
        self.waiting = [other for other in self.waiting if other is not answer]
        self.at_work = [other for other in self.at_work if other is not answer]

    def stop(self) -> None:
        """Take nothing more in and end what is there."""
        self.is_stopping = True
        for answer in [*self.waiting, *self.at_work]:
            self.leave(answer, "the server is stopping")

    async def run(self) -> None:
        """Pass after pass, until the task is cancelled."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="model") as thread:
            while True:
                await self.wanted.wait()
                n_free = self.limits.max_batch - len(self.at_work)
                newcomers, self.waiting = self.waiting[:n_free], self.waiting[n_free:]
                self.at_work += newcomers
                step = asyncio.get_running_loop().run_in_executor(
                    thread, self.batch.step, [answer.job for answer in newcomers]
                )
                try:
                    await step
                    self.show()
                except Exception as error:  # out of memory, say: these requests are lost, the next ones are not
                    self.lose(error)
                if not self.at_work and not self.waiting:
                    self.batch.drop_leavers()  # and with them their cache
                    self.wanted.clear()

    def show(self) -> None:
        """Copy what the pass gave to those who wait for it, and let those go that are finished."""
        for answer in self.at_work:
            job = answer.job
            answer.text, answer.n_tokens, answer.stopped_by = job.text, len(job.ids), job.stopped_by
            answer.changed.set()
        self.at_work = [answer for answer in self.at_work if answer.stopped_by is None]

    def lose(self, error: Exception) -> None:
        """Begin anew after a pass that failed half-way: nobody knows what is in the cache."""
        self.batch = Batch(self.batch.model, self.batch.tokenizer)
        for answer in list(self.at_work):
            self.leave(answer, f"the model failed: {(str(error) or repr(error)).splitlines()[0]}", 500)
