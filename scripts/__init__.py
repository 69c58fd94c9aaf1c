"""The commands: each parses flags, calls `gpt` and writes files. This file makes ready what they all need first."""

import os
import sys

# Before torch starts its threads: on a busy machine they should sleep while they wait for each other, not spin. Beside
# another busy process that halves the time of a training step on two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "10")  # seconds: a log wants fewer lines of a bar than a terminal


def show_error(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Ctrl-C is no fault, even while modules are still being imported; all else is shown as ever."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = show_error
