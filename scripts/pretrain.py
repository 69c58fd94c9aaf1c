"""Pretrain a small GPT-2 on a folder of plain text: how the bundled gpt2-tiny was made.

CORPUS holds .txt.xz files, documents ended by a line <|endoftext|>, and a folder heldout/ of the same.
Ctrl-C saves; the same command goes on. At the end --out is a Hugging Face folder in float16.
"""

import json
import lzma
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
from tqdm import tqdm

from gpt.curation.material import make_material
from gpt.curation.rule_text import Ban, rule_text
from gpt.evaluation.plots import GREY, plot_lines, save_figure
from gpt.model.gpt2 import GPT
from gpt.studies.pretrain import Mixture, PretrainConfig, curve_lines, held_out_loss, make_optimizer, pretrain
from gpt.text.entries import load_entries
from gpt.text.tokenizer import END_OF_TEXT, load_tokenizer
from gpt.weights.checkpoint import SIZES, find_folder, load_model, save_model, write_atomically, write_json
from scripts.choices import choose_device, default_precision
from scripts.command import add_config_flags, config_from, make_parser, one_line_errors
from scripts.finetune import ENTRIES

# How often each text is drawn, by file name; others 1. Mostly old prose: the simple and the modern count for more.
WEIGHTS = {
    "storybooks_ccby": 8.0, "aesop_for_children": 4.0, "gutenberg_children": 2.0, "tatoeba_sentences": 2.0,
    "opensource_guide": 2.0, "world_factbook": 2.0, "wordnet_glosses": 2.0, "us_gov_web": 1.2, "classic_books": 0.4,
}  # fmt: skip
SAVE_EVERY = 250  # steps


def read_text(path: Path) -> str:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def load_ids(folder: Path, cache: Path) -> dict[str, np.ndarray]:
    """File name -> ids with the end of text after each document, for every .txt.xz in the folder; encoded once."""
    tokenizer, ids = load_tokenizer(), {}
    for path in sorted(folder.glob("*.txt.xz")):
        name = path.name.removesuffix(".txt.xz")
        saved = cache / f"{folder.name}-{name}.npy"
        if not saved.exists():
            documents = [text.strip() for text in read_text(path).split(END_OF_TEXT) if text.strip()]
            encoded = tokenizer.bpe.encode_ordinary_batch(documents)
            array = np.array([i for row in encoded for i in [*row, tokenizer.eot_id]], dtype=np.uint16)
            write_atomically(saved, lambda part, array=array: part.write_bytes(array.tobytes()))
        ids[name] = np.fromfile(saved, dtype=np.uint16)
    if not ids:
        raise ValueError(f"{folder} has no .txt.xz files: CORPUS needs some, and a folder heldout/ with some")
    return ids


def make_task_row(corpus: Path) -> Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    """Rows of task-like text, made as they are needed, with nothing in them of any bundled entry: ids, and True for
    those of answers. What is asked about is drawn at random; to guess it would teach nothing."""
    texts = {path.name: read_text(path) for path in sorted(corpus.glob("*.txt.xz"))}
    material = make_material(texts.values(), texts.get("wordnet_glosses.txt.xz", ""))
    ban, tokenizer = Ban(load_entries(ENTRIES)), load_tokenizer()

    def task_row(length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        source, ids, counted = Random(int(rng.integers(2**62))), [], []
        while len(ids) < length:
            text, answers = rule_text(source, material, ban)
            encoded = tokenizer.encode(text)
            _, starts = tokenizer.bpe.decode_with_offsets(encoded)
            is_answer = np.zeros(len(text), dtype=bool)  # by character
            for answer in answers:
                is_answer[answer] = True
            ids += [*encoded, tokenizer.eot_id]
            counted += [is_answer[i : max(j, i + 1)].any() for i, j in pairwise([*starts, len(text)])] + [True]
        return np.array(ids[:length]), np.array(counted[:length])

    return task_row


def earlier_stages(start: str | None) -> list[dict]:
    """How the weights came about that a run goes on from, where that is known."""
    path = find_folder(start) / "pretraining.json" if start else None
    return json.loads(path.read_text(encoding="utf-8"))["stages"] if path and path.exists() else []


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder, and the run's state")
    parser.add_argument("--start", default=None, metavar="DIR", help="go on from these weights instead of random ones")
    parser.add_argument("--device", metavar="X", help="auto (CUDA, MPS, CPU), cuda, mps or cpu [auto]")
    add_config_flags(
        parser,
        PretrainConfig,
        "tokens lr repeats tasks tasks_from flat_until whole_context_from full_softmax_from precision seed".split(),
    )
    args = parser.parse_args(argv)
    device, shown = choose_device(getattr(args, "device", "auto"))
    is_fast = default_precision(device)[0] == "bf16"  # elsewhere its products may take ten times as long
    config = config_from(args, PretrainConfig, precision="bf16" if is_fast else "float32")
    work = args.out / "last"
    work.mkdir(exist_ok=True, parents=True)
    sources, held_out = load_ids(args.corpus, work), load_ids(args.corpus / "heldout", work)
    mixture = Mixture(sources, {name: WEIGHTS.get(name, 1.0) for name in sources}, SIZES["gpt2-tiny"].vocab_size, 50256)
    torch.manual_seed(config.seed)
    model = load_model(args.start) if args.start else GPT(SIZES["gpt2-tiny"])
    model.to(device)
    optimizer, path, step, curve = make_optimizer(model, config), work / "state.pt", -1, []
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, curve = state["step"], state["curve"]

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "curve": curve}
        write_atomically(path, lambda part: torch.save(state, part))

    print(f"corpus   {args.corpus}: {sum(map(len, sources.values())) / 1e6:.1f}M tokens")
    print(f"device   {shown}, {config.precision}")
    every = np.concatenate(list(held_out.values()))
    task_row = make_task_row(args.corpus) if config.tasks else None
    asked: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    bar = tqdm(
        total=config.tokens, initial=(step + 1) * config.batch_tokens, unit="tok", unit_scale=True, mininterval=5
    )
    average = curve[-1]["loss"] if curve else None
    for done, loss in pretrain(model, optimizer, mixture, config, task_row, step + 1):
        step = done
        average = loss if average is None else 0.98 * average + 0.02 * loss
        bar.update(config.batch_tokens)
        bar.set_postfix(loss=f"{average:.3f}", refresh=False)
        if (step + 1) % SAVE_EVERY == 0:
            tokens = (step + 1) * config.batch_tokens
            curve.append({"tokens": tokens, "loss": average, "held_out": held_out_loss(model, every)})
            save()
        if asked:
            save()
            print("stopped and saved; the same command goes on")
            return 130
    save()
    save_model(model, args.out, dtype=torch.float16)
    losses = {name: held_out_loss(model, ids, rows=100) for name, ids in held_out.items()}
    stages = [*earlier_stages(args.start), {"config": vars(config), "curve": curve}]
    facts = {"tokens": {name: len(ids) for name, ids in sources.items()}, "stages": stages, "held_out": losses}
    write_json(args.out / "pretraining.json", facts)
    ax = plot_lines(curve_lines(stages), "Pretraining", "million tokens", "nats per token")
    for begin in accumulate(stage["config"]["tokens"] / 1e6 for stage in stages[:-1]):
        ax.axvline(begin, color=GREY, linewidth=0.8, linestyle=":")
    write_atomically(args.out / "curve.png", lambda part: save_figure(ax, part))
    print(f"{args.out}: held-out loss " + ", ".join(f"{name} {loss:.2f}" for name, loss in losses.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
