"""Models whose frequencies change at a length: nothing is written across it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import hookql
from tests.models.test_regime import longrope
from tests.tiny import character_tokenizer

QUERY = "capture mean, count from layers[*] during generate(max_new_tokens=4)"


def test_a_text_is_not_written_across_the_bound(golden: Callable[[str, str], None]) -> None:
    """What lies in the cache has the frequencies of before: refused, and said."""
    with pytest.raises(hookql.ModelError) as caught:
        hookql.run(QUERY, model=longrope(), tokenizer=character_tokenizer(), texts=["x" * 15])
    golden("generation/regime-crossed.txt", f"{caught.value}\n")


@pytest.mark.parametrize("length", [6, 20])
def test_on_either_side_of_it_texts_are_those_of_a_plain_pass(length: int) -> None:
    """Short ones and long ones are written, and their numbers those of prompt and text."""
    model, tokenizer = longrope(), character_tokenizer()
    found = hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=["x" * length])
    ids = tokenizer(["x" * length], return_tensors="pt")
    whole = model.generate(**ids, max_new_tokens=4, do_sample=False)[:, :-1]
    plain = hookql.run(
        "capture mean, count from layers[*]", model=model, inputs={"input_ids": whole}
    )
    assert int(plain["count"]) == int(found["count"])
    np.testing.assert_allclose(found["mean"].values, plain["mean"].values, atol=1e-5)
