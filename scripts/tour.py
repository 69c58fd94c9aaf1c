"""Follow one entry through every station, from JSON to a scored response: ten seconds, no network."""

import sys
from collections.abc import Sequence

import torch

from gpt.evaluation.metrics import METRICS
from gpt.model.generate import respond
from gpt.text.dataset import IGNORE_INDEX, collate, encode_entry, show_mask
from gpt.text.entries import load_entries, split_entries, split_report
from gpt.text.prompts import format_prompt
from gpt.text.tokenizer import load_tokenizer
from gpt.training.loss import evaluate_loss, supervised_loss
from gpt.training.train import TrainConfig, make_optimizer
from gpt.weights.checkpoint import load_model
from scripts.command import make_parser, one_line_errors
from scripts.finetune import ENTRIES

EPOCHS = 12  # passes over the two entries, enough to see the loss fall


def station(number: int, title: str, file: str) -> None:
    print(f"\n\033[1m{number}. {title}\033[0m  gpt/{file}")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="gpt2-tiny", metavar="X", help="a name or a folder [gpt2-tiny]")
    args = parser.parse_args(argv)
    tokenizer = load_tokenizer()

    station(1, "Entries: JSON objects, checked", "text/entries.py")
    entries = load_entries(ENTRIES)
    train, val, test = split_entries(entries)
    print(f"{len(entries)} entries in {ENTRIES.name}; split into {len(train)} train, {len(val)} val, {len(test)} test")
    print(f"test prompts that stand in train: {split_report(train, test)}")
    with_input = [entry for entry in train if entry["input"] and len(entry["output"]) < 60]
    entry, other = with_input[0], with_input[1]
    print("our entry:", {field: entry[field] for field in ("instruction", "input", "output")})

    station(2, "The prompt: what the model reads before it answers", "text/prompts.py")
    print(format_prompt(entry) + "|")
    print("(it ends with the response header and a line break: the bar stands where the answer begins)")

    station(3, "Ids and kinds: prompt and response are encoded apart, then joined", "text/dataset.py")
    example = encode_entry(entry, tokenizer)
    print("ids   ", *example.ids[:8], "...", *example.ids[-6:], f"({len(example.ids)} of them)")
    print("kinds ", *[kind.name.lower() for kind in example.kinds[-6:]], "(the last six)")
    for loss_on in ("all", "response"):
        print(f"what counts with loss_on={loss_on!r} is green:")
        show_mask(example, loss_on)

    station(4, "A batch: padded, shifted, masked, here and nowhere else", "text/dataset.py")
    examples = [example, encode_entry(other, tokenizer)]
    inputs, targets = collate(examples)
    print(f"inputs  {tuple(inputs.shape)}  last row ends {inputs[-1, -4:].tolist()}")
    print(f"targets {tuple(targets.shape)}  last row ends {targets[-1, -4:].tolist()}")
    print(f"{(targets != IGNORE_INDEX).sum()} of {targets.numel()} targets count; the others are {IGNORE_INDEX}")

    station(5, "The model", "model/gpt2.py")
    model = load_model(args.model)
    hidden = model.hidden(inputs)
    print(f"{args.model}: {model.n_parameters():,} parameters, {model.config}")
    print(f"hidden {tuple(hidden.shape)}, logits {tuple(model.logits(hidden).shape)}")

    station(6, "The loss: summed over the targets that count", "training/loss.py")
    loss_sum, n = supervised_loss(hidden, targets, model.output_weight)
    print(f"{loss_sum.item():.1f} nats over {n} tokens: {loss_sum.item() / n:.3f} nats per token")
    print("three ways of counting:", {name: round(loss, 3) for name, loss in evaluate_loss(model, examples).items()})

    station(7, f"{EPOCHS} steps of training on these two entries alone", "training/train.py")
    optimizer = make_optimizer(model, TrainConfig(lr=1e-3))
    for step in range(EPOCHS):
        loss_sum, n = supervised_loss(model.hidden(inputs), targets, model.output_weight)
        (loss_sum / n).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"{loss_sum.item() / n:.2f}", end=" " if step < EPOCHS - 1 else "  nats per token, step by step\n")

    station(8, "The response: one token at a time until end of text", "model/generate.py")
    response = next(respond(model, tokenizer, [entry], max_new_tokens=60))
    print(f"{response.text!r}, {response.n_tokens} tokens, stopped by {response.stopped_by}")

    station(9, "The score", "evaluation/metrics.py")
    print({name: round(metric(response.text, entry["output"]), 3) for name, metric in METRICS.items()})
    print("\n(it has learned these two by heart; python -m scripts.finetune teaches it the task)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
