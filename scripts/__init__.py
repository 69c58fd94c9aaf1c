"""The commands: each parses flags, calls `gpt` and writes files."""

import os

# Before torch starts its threads: on a busy machine they should sleep while they wait for each other, not spin. Beside
# another busy process that halves the time of a training step on two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
