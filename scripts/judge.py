"""Let a language model judge a run's responses: python -m scripts.judge RUN --base-url URL --model NAME

Any server with OpenAI's chat protocol will do. Verdicts go to RUN/verdicts.jsonl as they come; killed or stopped, the
same command asks only what is missing, then it writes RUN/judge.json and RUN/judge.md with pictures.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from gpt.evaluation import judge, plots
from gpt.evaluation.chat_client import ChatClient, ChatError
from gpt.hardware.locks import alone_with
from gpt.studies import judge_report
from gpt.weights.checkpoint import read_json, write_atomically, write_json
from gpt.weights.download import cache_folder
from scripts.choices import key_from_environment
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors

ENOUGH_FAILURES = 10  # one after the other: the server is gone
MAX_TOKENS = 2048  # of a reply: room to think, and an end for a judge that repeats itself


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder, or another with a responses.json")
    parser.add_argument("--base-url", required=True, metavar="URL", help="such as http://localhost:11434 (Ollama)")
    parser.add_argument("--model", required=True, metavar="NAME", help="the judge's name on that server")
    parser.add_argument("--key-env", metavar="X", help="environment variable that holds the key [OPENAI_API_KEY]")
    parser.add_argument("--against", metavar="OTHER", help="another run to compare with; base: this run's base model")
    parser.add_argument("--rubric", action="store_true", help="grades 1 to 5 by a rubric instead of 0 to 100")
    parser.add_argument("--aspects", action="store_true", help="ask for relevance, accuracy ... apart, too")
    parser.add_argument("--calibration", type=int, default=20, metavar="X", help="rows to try the judge on [20]")
    parser.add_argument("--again", action="store_true", help="ask anew where no score could be read in the replies")
    parser.add_argument("--workers", type=int, default=4, metavar="X", help="requests at a time [4]")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "replies", metavar="DIR", help="replies so far")
    parser.add_argument("--max-tokens", type=int, metavar="X", help=f"a reply's tokens, at most [{MAX_TOKENS}]")
    add_config_flags(parser, ChatClient, ["timeout", "n_tries"])
    return parser.parse_args(argv)


def load_rows(folder: Path, field: str) -> list[dict]:
    rows = read_json(folder / "responses.json", list)
    fields = ("instruction", "input", "output", field)
    if not rows or not all(isinstance(row, dict) and isinstance(row.get(name), str) for row in rows for name in fields):
        raise ValueError(
            f"{folder}/responses.json: every row needs {', '.join(fields)} as text: write it with scripts.evaluate"
        )
    return rows


def load_others(rows: list[dict], run: Path, against: str) -> dict[int, str]:
    """The responses that ours are compared with, by row."""
    field = "base_response" if against == "base" else "model_response"
    found = judge.match_rows(rows, load_rows(run if against == "base" else Path(against), field), field)
    if not found:
        raise ValueError(f"{run} and {against} share no entry: evaluate both on the same --data")
    return found


def ask(questions: list[judge.Question], client: ChatClient, path: Path, n_workers: int) -> tuple[list[str], bool]:
    """Ask to the end, to Ctrl-C, or until the server is gone: why requests failed, and whether it was Ctrl-C."""
    failures, in_a_row, asked = [], 0, []

    def stop(number: int, _: object) -> None:
        asked.append(number)
        client.stop.set()  # what is under way comes to its end and is kept
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C does not wait for that

    previous = signal.signal(signal.SIGINT, stop)
    try:
        verdicts = judge.collect_verdicts(questions, client.ask, path, client.model, n_workers)
        n = len({question.digest for question in questions})  # equal ones are asked once
        with tqdm(desc="judging", total=n, unit="question", dynamic_ncols=True) as bar:
            for _, verdict in verdicts:
                failed = isinstance(verdict, ChatError)
                bar.update(not failed)  # of a run that was stopped the bar shows what has a verdict
                in_a_row, failures = (in_a_row + 1, [*failures, str(verdict)]) if failed else (0, failures)
                if in_a_row == ENOUGH_FAILURES:
                    client.stop.set()
    finally:
        signal.signal(signal.SIGINT, previous)
    return failures, bool(asked)


def write_report(folder: Path, names: dict, rows: list[dict], others: dict[int, str], found: dict[str, dict]) -> None:
    """judge.json, judge.md and its pictures; the outcome is printed too. found: every judge's verdicts by sample."""
    ours = found.pop(names["judge"])
    summary = names | judge_report.judge_summary(rows, others, ours, found)
    for name, ax in judge_report.judge_figures(summary, rows, others, ours).items():
        write_atomically(folder / name, lambda part, ax=ax: plots.save_figure(ax, part))
    write_json(folder / "judge.json", summary)
    page = judge_report.judge_page(summary, rows, ours)
    write_atomically(folder / "judge.md", lambda part: part.write_text(page, encoding="utf-8"))
    words = [judge_report.headline(summary), judge_report.trust(summary)]
    words += [judge_report.comparison_words(summary)] if others else []
    print(*words, f"all of it: {folder / 'judge.md'}", sep="\n")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    rows = load_rows(args.run, "model_response")
    with alone_with(args.run / "verdicts.jsonl"):
        return judge_rows(rows, args)


def judge_rows(rows: list[dict], args: argparse.Namespace) -> int:
    """Ask what has no verdict yet, and report."""
    against = getattr(args, "against", "")
    others = load_others(rows, args.run, against) if against else {}
    scale, aspects = "1-5" if "rubric" in args else "0-100", list(judge.ASPECTS) if "aspects" in args else ["overall"]
    questions = judge.run_questions(rows, others, scale, aspects, args.calibration)
    client = config_from(
        args, ChatClient, max_tokens=MAX_TOKENS, key=key_from_environment(args.base_url, getattr(args, "key_env", None))
    )
    path, failures = args.run / "verdicts.jsonl", []
    elsewhere = judge.read_verdicts(Path(against) / "verdicts.jsonl") if against else {}
    known = elsewhere | judge.read_verdicts(path)
    done = {key for key, verdict in known.items() if verdict.score is not None or "again" not in args}
    if missing := [question for question in questions if (client.model, question.digest) not in done]:
        client.check()
        failures, is_stopped = ask(missing, client, path, args.workers)
        known = elsewhere | judge.read_verdicts(path)
        if is_stopped:
            print(f"stopped: verdicts are kept in {path}, and the same command goes on", file=sys.stderr)
            return 130
    found = {name: judge.verdicts_by_sample(questions, known, name) for name in sorted({name for name, _ in known})}
    if found.get(args.model, {}).get(("response", "overall")):
        names = {"judge": args.model, "scale": scale, "other": against, "failed": len(failures)}
        write_report(args.run, names, rows, others, found)
    if failures:
        raise ChatError(f"{len(failures)} questions have no verdict; the same command asks them again: {failures[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
