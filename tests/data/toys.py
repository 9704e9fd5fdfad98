"""Small tokenizers of each kind, made on the spot."""

from __future__ import annotations

from functools import cache
from typing import Any

import transformers as hf

_TEXT = (
    "In the beginning was the word. Paris is the capital of France, and the rain in Paris falls "
    "on the just and on the unjust, é and 🎉. the capital, the word, Paris",
) * 4


@cache
def byte_bpe(around: bool = False) -> Any:
    """A byte-level BPE like GPT-2's, with one special token; ``around`` puts it at both ends."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    inner.train_from_iterator(_TEXT, trainer)
    if around:
        inner.post_processor = processors.TemplateProcessing(
            single="<|end|> $A <|end|>", special_tokens=[("<|end|>", 0)]
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|end|>", eos_token="<|end|>", model_max_length=8
    )


@cache
def metaspace() -> Any:
    """A tokenizer with sentencepiece's spelling, ``▁Paris``, that drops the leading space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<unk>", "a", "▁a", "Paris", "▁Paris", "▁", "P", "aris", "s"]
    inner = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], 0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def slow() -> Any:
    """A tokenizer in pure Python: bytes, with ``</s>`` after them."""
    return hf.ByT5Tokenizer()


class NoMask:
    """A tokenizer that knows nothing of special-token masks; ``!`` makes it raise."""

    all_special_ids = (1, 2)

    def __call__(self, texts: list[str], add_special_tokens: bool = True, **_: Any) -> Any:
        if any("!" in text for text in texts):
            raise ValueError("an exclamation mark\nwhich I refuse")
        rows = [[ord(c) for c in text] for text in texts]
        return {"input_ids": [[1, *row, 2] if add_special_tokens else row for row in rows]}
