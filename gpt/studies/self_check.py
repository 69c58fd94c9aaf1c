"""Before a run: do device and number format compute what they should?

Two questions, and each finds faults that the other does not.
- Has the model the loss that its weights are known to have on a fixed text? Damaged weights, a turned matrix, another
  order of q, k and v, a lost layer, a lost mask move it by more than the margin. Small things do not: the exact GELU
  for the tanh one moves it by 1e-4.
- Does the device give the CPU's logits? This needs no knowledge of the weights, so it is asked for every model.

Sources: for gpt2 and gpt2-xl Raschka 2024, "Build a Large Language Model (From Scratch)", solution of exercise 5.5:
3.5596 and 3.1195, by code that shares no line with ours; logs of its readers agree to 3e-6. The other two lie between
them: on OpenWebText the four have 3.12, 2.84, 2.67 and 2.54 (nanoGPT, README). For the bundled gpt2-tiny it was
measured here, and has to be again when another one is bundled.
"""

import torch
import torch.nn.functional as F

from gpt.model.gpt2 import GPT
from gpt.text.tokenizer import load_tokenizer
from gpt.training.train import autocast
from gpt.weights.sources import OPENAI_NAMES

KNOWN_LOSS = {  # model -> the lowest and the highest loss on KNOWN_TEXT that can be right, in nats per token
    "gpt2": (3.5596, 3.5596),
    "gpt2-medium": (3.1195, 3.5596),
    "gpt2-large": (3.1195, 3.5596),
    "gpt2-xl": (3.1195, 3.1195),
    "gpt2-tiny": (4.917, 4.917),
}
MARGIN = 0.05  # nats; bf16 and other orders of summation take a fifth of it
LARGEST_DIFFERENCE = 0.1  # of a logit; devices in float32 differ by about 1e-3, broken ones by 1 and more
ROW = 256  # tokens a row, as the source has it
# The end of Edith Wharton's "The Verdict" (1908, public domain), cut where the source cuts it: two rows and one token.
KNOWN_TEXT = (
    "ue' collapsed like a house of cards. He didn't sneer, you understand, poor Stroud--he just lay there "
    "quietly watching, and on his lips, through the gray beard, I seemed to hear the question: 'Are you sure you "
    "know where you're coming out?'\n\n"
    '"If I could have painted that face, with that question on it, I should have done a great thing. The next '
    "greatest thing was to see that I couldn't--and that grace was given me. But, oh, at that minute, Rickham, "
    "was there anything on earth I wouldn't have given to have Stroud alive before me, and to hear him say: "
    "'It's not too late--I'll show you how'?\n\n"
    "\"It _was_ too late--it would have been, even if he'd been alive. I packed up my traps, and went down and "
    "told Mrs. Stroud. Of course I didn't tell her _that_--it would have been Greek to her. I simply said I "
    "couldn't paint him, that I was too moved. She rather liked the idea--she's so romantic! It was that that "
    "made her give me the donkey. But she was terribly upset at not getting the portrait--she did so want him "
    "'done' by some one showy! At first I was afraid she wouldn't let me off--and at my wits' end I suggested "
    "Grindle. Yes, it was I who started Grindle: I told Mrs. Stroud he was the 'coming' man, and she told "
    "somebody else, and so it got to be true. . . . And he painted Stroud without wincing; and she hung the "
    "picture among her husband's things. . . .\"\n\n"
    "He flung himself down in the arm-chair near mine, laid back his head, and clasping his arms beneath it, "
    "looked up at the picture above the chimney-piece.\n\n"
    "\"I like to fancy that Stroud himself would have given it to me, if he'd been able to say what he thought "
    'that day."\n\n'
    'And, in answer to a question I put half-mechanically--"Begin again?" he flashed out. "When the one thing '
    'that brings me anywhere near him is that I knew enough to leave off?"\n\n'
    'He stood up and laid his hand on my shoulder with a laugh. "Only the irony of it is that I _am_ still '
    "painting--since Grindle's doing it for me! The"
)


class SelfCheckError(ValueError):
    """What the model computes cannot be right; the message has what was seen, what was expected and what to do."""


def check_model(model: GPT, name: str, precision: str = "float32") -> str:
    """Ask both questions of a freshly loaded model and say in a sentence what was found. Raises SelfCheckError."""
    found, device = [], model.device.type
    if device != "cpu":
        difference = cpu_difference(model)
        if not difference <= LARGEST_DIFFERENCE:  # so written because it may be NaN
            raise SelfCheckError(
                f"self-check: a logit on {device} differs from the CPU's by {difference:.3g}, so {device} gives wrong "
                "results here: use --device cpu, or another version of PyTorch"
            )
        found.append(f"logits on {device} and on the CPU differ by {difference:.1e} at most")
    if bounds := KNOWN_LOSS.get(OPENAI_NAMES.get(name, name)):
        low, high, loss = bounds[0] - MARGIN, bounds[1] + MARGIN, known_text_loss(model, precision)
        if not low <= loss <= high:
            raise SelfCheckError(
                f"self-check: {name} has a loss of {loss:.3f} on a known text where {low:.2f} to {high:.2f} would be "
                f"right, so {device} or {precision} give wrong results, or the weights are damaged: try --device cpu "
                "--precision float32, then download them again (--no-self-check begins all the same)"
            )
        found.append(f"a loss of {loss:.3f} on a known text, where {low:.2f} to {high:.2f} is right")
    return "; ".join(found) or "nothing to compare this model with"


@torch.no_grad()
def known_text_loss(model: GPT, precision: str = "float32") -> float:
    """Nats per token of KNOWN_TEXT, with matrix products in this precision."""
    ids = torch.tensor(load_tokenizer().encode(KNOWN_TEXT), device=model.device)
    was_training = model.training
    model.eval()
    with autocast(model.device, precision):
        logits = model(ids[:-1].view(-1, ROW))  # (2, ROW, V)
    model.train(was_training)
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[1:]).item()


@torch.no_grad()
def cpu_difference(model: GPT) -> float:
    """The largest difference between a logit of the model where it is and on the CPU, in float32, on 32 tokens."""
    twin = GPT.without_weights(model.config)
    twin.load_state_dict({name: tensor.cpu() for name, tensor in model.state_dict().items()}, assign=True)
    ids = (
        torch.arange(32)[None, : model.config.context_length] * 997 % model.config.vocab_size
    )  # (1, 32), from all over
    was_training = model.training
    here, there = model.eval()(ids.to(model.device)).cpu(), twin.eval()(ids)
    model.train(was_training)
    return (here - there).abs().max().item()
