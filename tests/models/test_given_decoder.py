"""Tensors for a decoder beside an encoder's: the one thing that is not built."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import hookql
from tests.tiny import tiny


def test_inputs_of_a_decoder(golden: Callable[[str, str], None]) -> None:
    """Embeddings go in alone; a decoder's tensors beside them are refused by name."""
    model, _, _ = tiny("t5")
    inputs = {"inputs_embeds": torch.zeros(1, 3, 8), "decoder_inputs_embeds": torch.zeros(1, 2, 8)}
    with pytest.raises(hookql.UsageError) as caught:
        hookql.run("capture mean from encoder.block[0]", model=model, inputs=inputs)
    golden("models/given-decoder.txt", f"{caught.value}\n")
