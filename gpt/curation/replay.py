"""A teacher's replies in a file: asked the same, it says the same, without a server.

    {"teacher": "SmolLM2-135M-Instruct.Q4_1", "server": ..., "temperature": ..., ..., "replies": [{"prompt": ..., ...}]}

Chapter 11 plays such a file, so that it runs anywhere and makes the same entries everywhere. With `live` the teacher is
asked for what the file does not have; `scripts.record_replies` makes the file in this way, and nobody writes into it.
"""

import json
from pathlib import Path

from gpt.curation.teacher import Ask
from gpt.weights.checkpoint import write_atomically

N_SHOWN = 60  # characters of a prompt that an error shows, of its end: prompts begin alike


class UnknownPrompt(ValueError):
    """Nobody has recorded a reply to this prompt."""


class Replies:
    """`Replies(path).ask` is a teacher. Raises UnknownPrompt for a prompt without a reply, where no `live` one is."""

    def __init__(self, path: Path, live: Ask | None = None, about: dict[str, object] | None = None) -> None:
        """about: who replied and with which settings. Replies that others gave, or with others, are forgotten."""
        self.path, self.live, self.known, self.asked = path, live, {}, {}  # asked: of this run, in order
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        rows = record.pop("replies", [])
        self.about = record if about is None else about
        if self.about == record:
            self.known = {row["prompt"]: row["reply"] for row in rows}

    def ask(self, prompt: str) -> str:
        if prompt not in self.known:
            if self.live is None:
                end = " ".join(prompt.split())[-N_SHOWN:]
                raise UnknownPrompt(
                    f"{self.path.name} has no reply to the prompt that ends in {end!r}: record it from a server with "
                    "python -m scripts.record_replies --base-url URL --model NAME"
                )
            self.known[prompt] = self.live(prompt)
            self.save(self.known)  # at once: of a run that is stopped nothing is lost
        self.asked[prompt] = self.known[prompt]
        return self.asked[prompt]

    def save(self, replies: dict[str, str]) -> None:
        rows = [{"prompt": prompt, "reply": reply} for prompt, reply in replies.items()]
        text = json.dumps({**self.about, "replies": rows}, ensure_ascii=False, indent=1)
        write_atomically(self.path, lambda part: part.write_text(text + "\n", encoding="utf-8"))
