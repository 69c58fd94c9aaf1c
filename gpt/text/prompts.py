"""Prompts: an entry as the text that the model sees before it answers.

A prompt ends with the response header and a line break, in training and in generation alike, so the first token that
the model has to find is the first token of the response. This is the only file that knows the words of the templates.

Source of the `alpaca` texts: the Stanford Alpaca repository (Taori et al. 2023), README, "Data Release".
"""

import json
from collections.abc import Sequence
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
        # llama.cpp does not know \\u
        texts = {f.name: json.dumps(getattr(self, f.name), ensure_ascii=False) for f in fields(self)}
        settings = [f"{{%- set {name} = {text} -%}}\n" for name, text in texts.items() if name != "name"]
        return "".join(settings) + CHAT_TEMPLATE


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
    return preamble(entry, t) + format_block(entry, t)


def preamble(entry: Entry, t: Template) -> str:
    return t.preamble_with_input if entry["input"].strip() else t.preamble_without_input


def format_block(entry: Entry, t: Template) -> str:
    """The prompt without its preamble: the headers and the texts under them."""
    middle = f"{t.input_header}{entry['input']}\n\n" if entry["input"].strip() else ""
    return f"{t.instruction_header}{entry['instruction']}\n\n{middle}{t.header}"


def format_few_shot_prompt(entry: Entry, shots: Sequence[Entry], template: str = "alpaca") -> str:
    """The prompt with worked examples, `shots`, between its preamble and its own block.

    A model that was not fine-tuned goes on as the text before it does: it answers, leaves a blank line and writes the
    next instruction, which is a stop string. Hence one blank line between blocks, as between all parts of a prompt (an
    end of text would tell GPT-2 that what came before is another document), and one preamble, the entry's, at the top.

    >>> shot = {"instruction": "Name a colour.", "input": "", "output": "Blue."}
    >>> print(format_few_shot_prompt({"instruction": "Name a fruit.", "input": "", "output": ""}, [shot], "short"))
    ### Instruction:
    Name a colour.
    <BLANKLINE>
    ### Response:
    Blue.
    <BLANKLINE>
    ### Instruction:
    Name a fruit.
    <BLANKLINE>
    ### Response:
    <BLANKLINE>
    """
    t = get_template(template)
    blocks = [f"{format_block(shot, t)}{shot['output'].strip()}\n\n" for shot in shots]
    return preamble(entry, t) + "".join(blocks) + format_block(entry, t)


def n_template_tokens(entry: Entry, tokenizer: Tokenizer, template: str = "alpaca") -> int:
    """The length of the shortest prompt that `encode_prompt` can make: one token of text under each header."""
    shortest = entry | {"instruction": "x", "input": "x" if entry["input"].strip() else ""}
    return len(tokenizer.encode(format_prompt(shortest, template)))


def n_least_prompt_tokens(entry: Entry, tokenizer: Tokenizer, template: str, max_length: int) -> int:
    """What a prompt keeps however long its response is: the instruction, up to three quarters of max_length.

    Raises ValueError where the template leaves no room for a token of the response and the end of text.
    """
    if (least := n_template_tokens(entry, tokenizer, template)) > max_length - 2:
        raise ValueError(f"{max_length} tokens a row are too few: template {template!r} alone takes {least}, use more")
    asked = entry | {"input": "x" if entry["input"].strip() else ""}
    return max(least, min(len(tokenizer.encode(format_prompt(asked, template))), max_length * 3 // 4))


def encode_prompt(entry: Entry, tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024) -> list[int]:
    """The prompt's ids, at most max_length of them: what is too long loses the end of its input, then of its
    instruction; the headers stay. Raises ValueError if they alone do not fit."""
    ids = tokenizer.encode(format_prompt(entry, template))
    for field in ("input", "instruction"):
        while len(ids) > max_length and (text_ids := tokenizer.encode(entry[field]))[1:]:
            n_kept = max(1, len(text_ids) - (len(ids) - max_length))
            text = tokenizer.decode(text_ids[:n_kept]).rstrip("\ufffd")  # a character may have been cut in two
            entry = entry | {field: text if text.strip() else "…"}  # a blank input would take its header along
            ids = tokenizer.encode(format_prompt(entry, template))
    if len(ids) > max_length:
        raise ValueError(f"the template {template!r} needs {len(ids)} tokens, not {max_length}: use a longer context")
    return ids


def encode_few_shot_prompt(
    entry: Entry, shots: Sequence[Entry], tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024
) -> tuple[list[int], int]:
    """The ids of the prompt after its shots, at most max_length of them, and how many shots they hold.

    Shots never cost the entry a token: one that does not fit beside it is left out. Without shots: `encode_prompt`.
    """
    ids, fitting = encode_prompt(entry, tokenizer, template, max_length), []
    for shot in shots:
        longer = tokenizer.encode(format_few_shot_prompt(entry, [*fitting, shot], template))
        if len(longer) <= max_length:
            ids, fitting = longer, [*fitting, shot]
    return ids, len(fitting)


# ---- and back: where a response ends ----


def has_stop_string(ids: list[int], tokenizer: Tokenizer, template: str = "alpaca") -> bool:
    """Whether the newest of a response's ids hold a stop string. To be asked after each id: it looks at the last 20."""
    text = tokenizer.decode(ids[-20:])
    if len(ids) <= 20:
        text = "\n" + text  # the line break of the response header: the response may begin with a stop string
    return any(stop in text for stop in get_template(template).stop_strings)


def decode_response(ids: list[int], tokenizer: Tokenizer, template: str = "alpaca", is_whole: bool = True) -> str:
    """The response in its ids: up to a stop string, without half a character at the end.

    While more may come (not is_whole), what may be the beginning of a stop string is held back: the text only grows.
    """
    text = "\n" + tokenizer.decode(ids).rstrip("\ufffd")
    for stop in get_template(template).stop_strings:
        text = text.partition(stop)[0]
        if not is_whole:
            n_held = max(n for n in range(len(stop)) if text.endswith(stop[:n]))
            text = text[: len(text) - n_held]
    return text.strip()
