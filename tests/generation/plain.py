"""What generating must give, by the plainest means: no cache, no padding, no batch, NumPy.

Nothing here uses HookQL. A text is continued by running all of it again for each token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn

Array = np.ndarray[Any, Any]

# Of very different lengths: one character to forty.
PROMPTS = [
    "Where were you?",
    "a",
    "In 1969, two people",
    "the the",
    "Ab",
    "O, to be, or not to be: that is all 4 u!",
]


@frozen(eq=False)
class Text:
    """A prompt of ``prompt`` tokens and what was written: all ``ids``, and how many are fed."""

    ids: list[int]
    prompt: int
    ended: bool = False

    @property
    def fed(self) -> list[int]:
        """All but the last written, of which nothing is ever computed."""
        return self.ids[:-1]

    @property
    def written(self) -> list[int]:
        """What the model wrote, an end included."""
        return self.ids[self.prompt :]

    @property
    def steps(self) -> Array:
        """The number of each token fed among the written, negative in the prompt."""
        return np.arange(len(self.fed)) - self.prompt


def logits_of(model: nn.Module, ids: Sequence[int]) -> Array:
    """The logits of one text by itself, float64 (S, V)."""
    with torch.no_grad():
        return np.asarray(model(torch.tensor([list(ids)])).logits[0].double().numpy())


def greedy(model: nn.Module, ids: Sequence[int], new: int, ends: Collection[int] = ()) -> Text:
    """A prompt continued by the likeliest token, again and again."""
    whole = list(ids)
    for _ in range(new):
        whole.append(int(logits_of(model, whole)[-1].argmax()))
        if whole[-1] in ends:
            return Text(whole, len(ids), True)
    return Text(whole, len(ids))


def texts(
    model: nn.Module,
    tokenizer: Any,
    new: int,
    prompts: Sequence[str] = PROMPTS,
    ends: Collection[int] = (2,),
) -> list[Text]:
    """Every prompt, continued greedily. Id 2 ends a text of the tiny models."""
    return [greedy(model, tokenizer(p)["input_ids"], new, ends) for p in prompts]


def rows_of(
    model: nn.Module,
    module: str,
    fed: Sequence[Sequence[int]],
    pick: Callable[[Any, Any, Any], Tensor] | None = None,
    **extra: Any,
) -> list[Array]:
    """Of each text by itself, what a hook picks of a module's (args, kwargs, output), float64."""
    seen: list[Array] = []

    def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        tensor = first if pick is None else pick(args, kwargs, output)
        seen.append(tensor.detach()[0].double().numpy().copy())

    handle = model.get_submodule(module).register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        for ids in fed:
            model(torch.tensor([list(ids)]), **extra)
    handle.remove()
    return seen


def log_softmax(logits: Array) -> Array:
    """Along the last axis, in float64."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def assert_close(expected: Any, actual: Any, what: str = "") -> None:
    """Within 2e-5 of the largest number, NaN where NaN is."""
    expected, actual = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    assert expected.shape == actual.shape, (what, expected.shape, actual.shape)
    largest = np.max(np.abs(expected), where=np.isfinite(expected), initial=1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * largest, err_msg=what)
