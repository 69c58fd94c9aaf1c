"""For the makers of entries behind `scripts.curate`: the flags that they share, and the teachers that these name."""

import argparse
import math
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from gpt.curation.teacher import PRICES, Teacher, paced, price_of
from gpt.evaluation.chat_client import LOCAL, ChatClient
from gpt.text.formats import shown
from gpt.weights.checkpoint import read_json
from gpt.weights.download import cache_folder
from scripts.choices import key_from_environment
from scripts.command import add_config_flags, config_from

Parser, Args = argparse.ArgumentParser, argparse.Namespace
CLIENT_FLAGS = ["max_tokens", "timeout", "n_tries"]  # of a ChatClient


def at_least(least: float, kind: type = int) -> Callable[[str], float]:
    """The type of a flag that takes a number from this one on."""

    def number(text: str) -> float:
        if not least <= (value := kind(text)) < math.inf:  # nor is it nan
            raise argparse.ArgumentTypeError(f"{text}: use {least:g} or more")
        return value

    return number


def add_out_flag(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON or JSON Lines, by its ending")
    parser.add_argument("--seed", type=int, default=123, metavar="N", help="of every draw [123]")


def add_in_flag(parser: Parser, what: str, required: bool = True) -> None:
    parser.add_argument("--in", dest="source", type=Path, required=required, metavar="FILE", help=what)


def add_teacher_flags(parser: Parser, temperature: float) -> None:
    add_out_flag(parser)
    parser.add_argument("--base-url", required=True, metavar="URL", help="such as http://localhost:11434 (Ollama)")
    parser.add_argument("--model", required=True, metavar="NAME", help="the teacher's name on that server")
    parser.add_argument("--strong-model", metavar="NAME", help="a second teacher, for what is hard")
    parser.add_argument("--strong-url", metavar="URL", help="its server [--base-url]")
    parser.add_argument("--key-env", metavar="X", help="environment variable that holds the key [OPENAI_API_KEY]")
    parser.add_argument("--temperature", type=at_least(0, float), default=temperature, metavar="X",
                        help=f"[{temperature}]")  # fmt: skip
    parser.add_argument("--workers", type=at_least(1), default=4, metavar="N", help="requests at a time [4]")
    parser.add_argument(
        "--per-minute", type=at_least(0, float), default=0, metavar="N", help="requests a minute, at most [no limit]"
    )
    parser.add_argument("--prices", type=Path, metavar="FILE", help='{"model": [dollars a million tokens in, out]}')
    parser.add_argument(
        "--max-dollars", type=at_least(0, float), metavar="X", help="do not begin if it is estimated higher"
    )
    parser.add_argument("--speed", type=at_least(0.001, float), default=30, metavar="X",
                        help="tokens a second, for the estimate [30]")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="estimate tokens, dollars and time, and ask nothing")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "replies", metavar="DIR", help="replies so far")
    add_config_flags(parser, ChatClient, CLIENT_FLAGS)


def read_prices(path: Path) -> dict[str, tuple[float, float]]:
    """US dollars per million tokens of prompt and of reply, by the models' names."""
    prices = read_json(path, dict)
    for name, pair in prices.items():
        is_pair = isinstance(pair, list) and len(pair) == 2 and all(type(price) in (int, float) for price in pair)
        if not is_pair or not 0 <= min(pair) <= max(pair) < math.inf:
            raise ValueError(f"{path}: {name!r} has {shown(pair)}: two prices are needed, such as [0.4, 1.6]")
    return {name: (float(there), float(back)) for name, (there, back) in prices.items()}


def make_teachers(args: Args, stop: threading.Event) -> tuple[list[Teacher], list[ChatClient]]:
    """The teacher, and the strong one where one is named. All stop with the same event and share one pace."""
    prices = PRICES | (read_prices(args.prices) if getattr(args, "prices", None) else {})
    if bad := [name for name in CLIENT_FLAGS if getattr(args, name, 1) <= 0]:
        raise ValueError(f"--{bad[0].replace('_', '-')} {getattr(args, bad[0])}: use a number above 0")
    places = [(args.base_url, args.model)]
    if getattr(args, "strong_model", None):
        places.append((getattr(args, "strong_url", None) or args.base_url, args.strong_model))
    given = Args(**{name: value for name, value in vars(args).items() if value is not None})
    teachers, clients = [], []
    for url, model in places:
        key = key_from_environment(url, getattr(args, "key_env", None))
        client = config_from(Args(**(vars(given) | {"base_url": url, "model": model})), ChatClient, key=key, stop=stop)
        ask = paced(client.ask, args.per_minute / len(places), stop) if args.per_minute else client.ask
        teachers.append(Teacher(model, ask, price_of(model, urlsplit(url).hostname in LOCAL, prices)))
        clients.append(client)
    return teachers, clients
