"""Raw values larger than the memory that the process may have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import resource, sys
import torch, transformers as hf
import hookql
from tests.tiny import VOCABULARY, character_tokenizer

torch.manual_seed(0)
config = hf.GPT2Config(
    n_layer=2, n_embd=32, n_head=2, n_inner=16384, vocab_size=VOCABULARY, n_positions=128
)
model = hf.GPT2LMHeadModel(config).eval()
tokenizer = character_tokenizer()
query = "capture values from h[*].mlp.act"
texts = [("abc def %d " % number) * 9 for number in range(int(sys.argv[2]))]
hookql.run(query, model=model, tokenizer=tokenizer, texts=texts[:2])  # all that is loaded once

held = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
room = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (held + room, held + room))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = hookql.run(query, model=model, tokenizer=tokenizer, texts=texts, output=sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
values = result["values"]
assert 2 * values.sizes["obs"] * 16384 * 4 == values.nbytes > room, values.nbytes
print(values.nbytes, (after - before) * 1024)
"""


def test_more_than_memory(tmp_path: Path) -> None:
    """2 GB of rows go through a process that may have 0.9 GB more than it starts with."""
    room = 900_000_000
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "a.nc"), "170", str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    written, grown = map(int, done.stdout.split()[-2:])
    assert written > 2 * room
    assert grown < room
