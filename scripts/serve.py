"""Serve a run: python -m scripts.serve RUN --port 8000, then open http://127.0.0.1:8000 or point an OpenAI client at
http://127.0.0.1:8000/v1. With --rate OTHER_RUN the page /rate compares the responses of two runs by hand.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from gpt.speed.decoding import FORMS
from gpt.text.prompts import TEMPLATES
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import load_settings
from gpt.weights.checkpoint import find_folder
from scripts.choices import choose_device, key_from_environment, load_packed
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors

try:
    from gpt.serving.protocol import Served
    from gpt.serving.rating import Rating
    from gpt.serving.scheduler import Limits
    from gpt.serving.server import LOCAL, listen, make_app, make_server
except ModuleNotFoundError as missing:
    if missing.name.split(".")[0] == "gpt":
        raise
    sys.exit(f"error: {missing.name} is not installed: pip install -c constraints.txt -e '.[serve]'")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="a run folder, or the name or folder of a model")
    parser.add_argument("--rate", type=Path, metavar="OTHER", help="another run, to rate the responses of both by hand")
    parser.add_argument("--seed", type=int, default=123, metavar="X", help="of the order on the page /rate [123]")
    parser.add_argument("--host", default="127.0.0.1", metavar="X", help="address to listen on [127.0.0.1, which only"
                        " this machine reaches]")  # fmt: skip
    parser.add_argument("--port", type=int, default=8000, metavar="X", help="0 takes a free one [8000]")
    parser.add_argument("--key-env", metavar="NAME", help="the environment variable with a key that clients must send")
    parser.add_argument("--name", metavar="X", help="what clients call the model [the folder's name]")
    parser.add_argument("--template", metavar="X", help=f"{', '.join(TEMPLATES)} [the run's; alpaca for other models]")
    parser.add_argument("--max-new-tokens", type=int, metavar="X", help="where a request does not say [256]")
    parser.add_argument("--device", default="auto", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    parser.add_argument("--weights", default="float32", metavar="X", help=f"on a CPU: {', '.join(FORMS)}; smaller is"
                        " faster and less exact [float32]")  # fmt: skip
    add_config_flags(parser, Limits, ["max_batch", "max_waiting", "max_body", "body_seconds"])
    args = parser.parse_args(argv)
    limits = config_from(args, Limits)
    key = key_from_environment("", args.key_env) if "key_env" in args else ""
    folder = find_folder(args.run)
    rating = Rating(folder, args.rate, args.seed) if "rate" in args else None
    device, _ = choose_device(args.device)
    settings = load_settings(folder)[0] if (folder / "training.json").exists() else None
    defaults = {
        "name": folder.resolve().name,
        "template": settings.template if settings else "alpaca",
        "turns": settings.turns if settings else False,
    }
    with listen(args.host, args.port) as sock:  # before the model is loaded: a port that is taken is said at once
        model = load_packed(folder, device, args.weights)
        served = config_from(args, Served, model=model, tokenizer=load_tokenizer(), **defaults)
        app = make_app(served, limits=limits, rating=rating, is_local=args.host in LOCAL, key=key)
        announce(served.name, args.host, sock.getsockname()[1], rating, bool(key))
        make_server(app).run(sockets=[sock])  # until Ctrl-C
    return 0


def announce(name: str, host: str, port: int, rating: Rating | None, has_key: bool) -> None:
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"{name} at {url} (the API at {url}/v1); Ctrl-C stops")
    if rating:
        print(f"rating by hand at {url}/rate: {len(rating.ratings)} of {len(rating.pairs)} pairs rated, {rating.path}")
    if has_key:
        print("clients send the key as Authorization: Bearer KEY; a browser opens the page as /#KEY")
    if host not in LOCAL:
        who = "who knows the key may use it, and the key crosses the network in the clear" if has_key else (
            "there is no key (--key-env NAME): anybody may use it")  # fmt: skip
        print(f"note: {host} can be reached from other machines; {who}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
