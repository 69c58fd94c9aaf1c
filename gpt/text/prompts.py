"""Prompts: an entry as the text that the model sees before it answers.

A prompt ends with the response header and a line break, in training and in generation alike, so the first token that
the model has to find is the first token of the response. This is the only file that knows the words of the templates.

Source of the `alpaca` texts: the Stanford Alpaca repository (Taori et al. 2023), README, "Data Release".
"""

import json
from dataclasses import dataclass, fields

from gpt.text.entries import Entry
from gpt.text.tokenizer import Tokenizer

ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)


@dataclass(frozen=True)
class Template:
    """The words around an entry. A run keeps the template's name: other words at use than in training cost quality."""

    name: str
    preamble_with_input: str
    preamble_without_input: str
    instruction_header: str = "### Instruction:\n"
    input_header: str = "### Input:\n"
    header: str = "### Response:\n"

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Where a response ends although the model goes on: it has begun to write the next instruction itself."""
        return ("\n" + self.instruction_header.rstrip("\n"),)

    @property
    def chat_template(self) -> str:
        """The same prompt as a Jinja template for Hugging Face's `apply_chat_template`, vLLM and llama.cpp.

        A user message's content is the instruction; a message may carry an `input` beside it.
        """
        names = [field.name for field in fields(self) if field.name != "name"]
        settings = "".join(f"{{%- set {name} = {json.dumps(getattr(self, name))} -%}}\n" for name in names)
        return settings + CHAT_TEMPLATE


# Each user message is a block of its own, as in training. Silence about a role that is not known would lose its text.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {%- if message['input'] is defined and message['input'] and message['input'].strip() -%}
            {{- preamble_with_input + instruction_header + message['content'] + '\\n\\n' -}}
            {{- input_header + message['input'] + '\\n\\n' + header -}}
        {%- else -%}
            {{- preamble_without_input + instruction_header + message['content'] + '\\n\\n' + header -}}
        {%- endif -%}
    {%- elif message['role'] == 'assistant' -%}
        {{- message['content'] + eos_token -}}
    {%- else -%}
        {{- raise_exception('this model knows the roles user and assistant, not ' + message['role']) -}}
    {%- endif -%}
{%- endfor -%}
"""


TEMPLATES = {
    template.name: template
    for template in [
        Template("alpaca", ALPACA_WITH_INPUT, ALPACA_WITHOUT_INPUT),
        Template("book", ALPACA_WITHOUT_INPUT, ALPACA_WITHOUT_INPUT),  # one preamble for both cases
        Template("short", "", ""),
        Template("zh", "", "", "### 指令：\n", "### 输入：\n", "### 输出：\n"),
    ]
}


def get_template(name: str) -> Template:
    if name not in TEMPLATES:
        raise ValueError(f"template {name!r} is not known: use one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def format_prompt(entry: Entry, template: str = "alpaca") -> str:
    """The text before the response.

    >>> print(format_prompt({"instruction": "Name the colour.", "input": "", "output": ""}, "short"))
    ### Instruction:
    Name the colour.
    <BLANKLINE>
    ### Response:
    <BLANKLINE>
    """
    t = get_template(template)
    if entry["input"].strip():
        middle = f"{t.instruction_header}{entry['instruction']}\n\n{t.input_header}{entry['input']}\n\n"
        return t.preamble_with_input + middle + t.header
    return f"{t.preamble_without_input}{t.instruction_header}{entry['instruction']}\n\n{t.header}"


def n_template_tokens(entry: Entry, tokenizer: Tokenizer, template: str = "alpaca") -> int:
    """The length of the shortest prompt that `encode_prompt` can make: one token of text under each header."""
    shortest = entry | {"instruction": "x", "input": "x" if entry["input"].strip() else ""}
    return len(tokenizer.encode(format_prompt(shortest, template)))


def encode_prompt(entry: Entry, tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024) -> list[int]:
    """The prompt's ids, at most max_length of them: what is too long loses the end of its input, then of its
    instruction; the headers stay. Raises ValueError if they alone do not fit."""
    ids = tokenizer.encode(format_prompt(entry, template))
    for field in ("input", "instruction"):
        while len(ids) > max_length and (text_ids := tokenizer.encode(entry[field]))[1:]:
            n_kept = max(1, len(text_ids) - (len(ids) - max_length))
            text = tokenizer.decode(text_ids[:n_kept]).rstrip("\ufffd")  # a character may have been cut in two
            entry = entry | {field: text or " "}
            ids = tokenizer.encode(format_prompt(entry, template))
    if len(ids) > max_length:
        raise ValueError(f"the template {template!r} needs {len(ids)} tokens, not {max_length}: use a longer context")
    return ids
