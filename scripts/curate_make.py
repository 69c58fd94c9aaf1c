"""The makers of entries behind `scripts.curate`: self-instruct, template, evolve, documents, answers, augment."""

from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from gpt.curation import answers, augment, code_answers, documents, evol_instruct, maths_answers, self_instruct
from gpt.curation.teacher import Job, run_jobs, run_until
from gpt.curation.templates import make_entries
from gpt.curation.templates_zh import make_chinese_entries
from gpt.text.entries import load_entries
from scripts.curate_run import Plan, check_out, dropped_path, in_order, make, write_entries
from scripts.curate_teachers import Args, Parser, add_in_flag, add_out_flag, add_teacher_flags, at_least

SEED_TASKS = Path(__file__).parents[1] / "data" / "seed_tasks.json"


def add_self_instruct(parser: Parser) -> None:
    add_in_flag(parser, "seed tasks, in our format or self-instruct's own [data/seed_tasks.json]", required=False)
    add_teacher_flags(parser, 0.7)
    parser.add_argument("-n", type=at_least(1), default=100, help="entries, at least [100]")
    parser.add_argument("-k", type=at_least(1), default=8, help="examples in a prompt [8]")
    parser.add_argument("--made", type=at_least(0), default=2, metavar="N", help="of them machine-made, at most [2]")
    parser.add_argument("--batch", type=at_least(1), default=4, metavar="N", help="prompts a round [4]")


def run_self_instruct(args: Args) -> int:
    tasks = self_instruct.tasks_of(load_entries(getattr(args, "source", None) or SEED_TASKS))
    names = {"k": args.k, "n_made": args.made, "batch": args.batch}
    return make(args, Plan(
        {"method": "self-instruct", "n_tasks": len(tasks), **names},
        self_instruct.expected_jobs(tasks, args.n, args.k, args.seed),
        lambda journal, teachers, workers: self_instruct.self_instruct(
            tasks, args.n, journal, teachers, n_workers=workers, seed=args.seed, **names),
        args.n, by_entries=True,
    ))  # fmt: skip


def add_template(parser: Parser) -> None:
    add_out_flag(parser)
    parser.add_argument("-n", type=at_least(1), default=24, help="entries of each template [24]")
    parser.add_argument("--language", choices=["en", "zh", "both"], default="en", help="[en]")


def run_template(args: Args) -> int:
    makers = {"en": [make_entries], "zh": [make_chinese_entries], "both": [make_entries, make_chinese_entries]}
    check_out(args.out)
    entries = [entry for maker in makers[args.language] for entry in maker(args.n, args.seed)]
    write_entries(args.out, entries)
    print(f"made       {len(entries)} entries of {len({e['source'] for e in entries})} templates: {args.out}")
    return 0


def add_evolve(parser: Parser) -> None:
    add_in_flag(parser, "entries whose instructions evolve")
    add_teacher_flags(parser, 0.7)
    parser.add_argument("--rounds", type=at_least(1), default=4, metavar="N", help="each from the one before [4]")
    parser.add_argument("--operations", nargs="+", default=list(evol_instruct.OPERATIONS), metavar="X",
                        help="of " + ", ".join(evol_instruct.OPERATIONS))  # fmt: skip


def run_evolve(args: Args) -> int:
    entries = load_entries(args.source)
    jobs = [evol_instruct.evolve_job(entry, round, i, args.seed, args.operations)
            for round in range(1, args.rounds + 1) for i, entry in enumerate(entries)]  # fmt: skip
    return make(args, Plan(
        {"method": "evolve", "operations": args.operations}, jobs,
        lambda journal, teachers, workers: evol_instruct.evol_instruct(
            entries, args.rounds, journal, teachers, operations=args.operations, n_workers=workers, seed=args.seed),
        len(jobs),
    ))  # fmt: skip


def plan_of(settings: dict[str, object], jobs: list[Job], **others: object) -> Plan:
    """The plan of jobs that are all known from the start."""
    return Plan(settings, jobs, lambda *how: run_jobs(jobs, *how), len(jobs), **others)


def add_documents(parser: Parser) -> None:
    add_in_flag(parser, 'a text file, a folder of them, or JSON Lines with "text"')
    add_teacher_flags(parser, 0.0)
    parser.add_argument("--tokens", type=at_least(0), default=400, metavar="N",
                        help="of a piece, at most; 0: paragraphs [400]")  # fmt: skip
    parser.add_argument("--overlap", type=at_least(0), default=60, metavar="N", help="tokens of the piece before [60]")
    parser.add_argument("--pairs", type=at_least(1), default=3, metavar="N", help="questions a piece [3]")
    parser.add_argument("--with-piece", action="store_true", default=False, help="the piece becomes the entry's input")
    parser.add_argument("--ask-support", action="store_true", default=False, help="ask again whether the piece says so")


def run_documents(args: Args) -> int:
    pieces = documents.read_pieces(args.source, args.tokens, args.overlap)
    print(f"pieces     {len(pieces)} of {len({piece.source for piece in pieces})} documents")
    jobs = documents.document_jobs(pieces, args.pairs, args.with_piece, args.ask_support)
    how = {"with_piece": args.with_piece, "ask_support": args.ask_support}
    return make(args, plan_of({"method": "documents", **how}, jobs))


def add_answers(parser: Parser) -> None:
    add_in_flag(
        parser, "instructions (plain), or problems with a result (maths): JSON, JSON Lines or a text file", False
    )
    parser.add_argument("--recipe", choices=["plain", "sentiment", "code", "maths"], default="plain", help="[plain]")
    parser.add_argument("-n", type=at_least(1), default=90, help="entries of a recipe that needs no --in [90]")
    parser.add_argument("--seconds", type=at_least(0.1, float), default=5, metavar="X", help="that code may run [5]")
    parser.add_argument("--megabytes", type=at_least(1), default=256, metavar="N", help="that code may use [256]")
    add_teacher_flags(parser, 0.3)


def run_answers(args: Args) -> int:
    settings, source = {"method": f"answers:{args.recipe}"}, getattr(args, "source", None)
    if args.recipe == "plain":
        if source is None:
            raise ValueError("plain answers need instructions: name a file with --in")
        entries = answers.read_instructions(source)
        given = [((i,), entry) for i, entry in enumerate(entries) if entry["output"]]
        return make(args, plan_of(settings, answers.answer_jobs(entries), given=given))
    if args.recipe == "maths":
        problems = load_entries(source) if source else maths_answers.make_problems(args.n, args.seed)
        return make(args, plan_of(settings, maths_answers.maths_jobs(problems)))
    if args.recipe == "sentiment":
        return make(args, recipe_plan(settings, args, answers.sentiment_jobs, answers.balance_labels))
    limits = {"seconds": args.seconds, "megabytes": args.megabytes}
    return make(args, recipe_plan(settings | limits, args, lambda *a: code_answers.code_jobs(*a, **limits)))


def recipe_plan(
    settings: dict, args: Args, make_jobs: Callable[..., list[Job]], finish: Callable | None = None
) -> Plan:
    """n entries of a recipe, with more jobs for what is dropped."""
    count = (lambda entries: len(finish(entries)[0])) if finish else len
    plan = Plan(
        settings, make_jobs(args.n, args.seed),
        lambda *how: run_until(args.n, lambda n, start: make_jobs(n, args.seed, start), *how, count=count),
        args.n, by_entries=True,
    )  # fmt: skip
    return plan._replace(finish=finish) if finish else plan


def add_augment(parser: Parser) -> None:
    add_in_flag(parser, "entries whose instructions are said in other words")
    parser.add_argument("--method", choices=augment.METHODS, default="paraphrase", help="[paraphrase]")
    parser.add_argument("-n", type=at_least(1), default=1, help="new wordings an entry [1]")
    parser.add_argument("--languages", nargs="+", default=list(augment.LANGUAGES), metavar="X",
                        help="of back-translation, in turn [German French Spanish]")  # fmt: skip
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), metavar="DIR",
                        help="WordNet's files, for synonyms [/usr/share/wordnet]")  # fmt: skip
    parser.add_argument("--with-originals", action="store_true", default=False, help="write the given entries, too")
    add_teacher_flags(parser, 0.7)
    for action in parser._actions:  # synonyms need no teacher
        action.required = action.required and action.dest not in ("base_url", "model")


def run_augment(args: Args) -> int:
    check_out(args.out, args.source)
    entries = load_entries(args.source)
    is_alone = args.method == "synonyms"
    if not is_alone and not (getattr(args, "base_url", None) and getattr(args, "model", None)):
        raise ValueError(f"{args.method} needs a teacher: --base-url and --model")
    synonyms = augment.wordnet_synonyms(args.wordnet) if is_alone else None
    how = {"n": args.n, "languages": args.languages, "synonyms": synonyms, "seed": args.seed}
    jobs = augment.augment_jobs(entries, args.method, **how)
    given = [((i, -1), entry) for i, entry in enumerate(entries)] if args.with_originals else []
    if not is_alone:
        return make(args, plan_of({"method": f"augment:{args.method}"}, jobs, given=given))
    done = {job.order: job.work(str) for job in tqdm(jobs, unit="entry", dynamic_ncols=True)}
    made, dropped = in_order(plan_of({}, jobs, given=given), done)
    write_entries(args.out, made)
    write_entries(dropped_path(args.out), dropped)
    print(f"made       {len(made) - len(given)} new wordings: {args.out}; {len(dropped)} entries have no sure synonym "
          f"or must not be changed: {dropped_path(args.out)}")  # fmt: skip
    return 0


COMMANDS: dict[str, tuple[str, Callable[[Parser], None], Callable[[Args], int]]] = {
    "self-instruct": ("new tasks from seed tasks, by a teacher", add_self_instruct, run_self_instruct),
    "template": ("entries made by templates, without a model", add_template, run_template),
    "evolve": ("instructions made harder round after round (Evol-Instruct)", add_evolve, run_evolve),
    "documents": ("questions and answers about texts", add_documents, run_documents),
    "answers": ("answers for instructions; recipes for sentiment, code and maths", add_answers, run_answers),
    "augment": ("the same entries in other words", add_augment, run_augment),
}
