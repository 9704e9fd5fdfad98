"""The demo model's tokenizer and network, and how they are trained."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

SEED = 20
CONTEXT = 256  # tokens
VOCABULARY = 2048
LAYERS, HEADS, WIDTH = 8, 4, 112
END = "<|endoftext|>"
BATCH = 8  # contexts a step
PEAK, WARMUP, LET_DOWN = 3e-3, 100, 0.4  # learning rate, steps, share of all steps
SAVE_EVERY = 100  # steps


def train_tokenizer(texts: tuple[str, ...]) -> Any:
    """Train a byte-level BPE tokenizer in GPT-2's style: no padding token, no unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def new_model(end: int) -> GPT2LMHeadModel:
    """Return the untrained model; the same weights each time."""
    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        activation_function="gelu_pytorch_tanh",  # GPT-2's gelu_new, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    return GPT2LMHeadModel(config)


def windows(stream: Tensor, line_starts: Tensor, epoch: int) -> Tensor:
    """Cut int64[N] into the contexts (n, CONTEXT) of one epoch, in a shuffled order.

    The cuts are shifted from epoch to epoch. Half of the contexts are moved back to the start of
    a line, as that is how texts start when the model is used.
    """
    draw = torch.Generator().manual_seed(SEED * 1000 + epoch)
    shift = int(torch.randint(CONTEXT, (1,), generator=draw))
    starts = torch.arange(shift, len(stream) - CONTEXT, CONTEXT)
    snapped = line_starts[torch.searchsorted(line_starts, starts, right=True) - 1]
    starts = torch.where(torch.rand(len(starts), generator=draw) < 0.5, snapped, starts)
    starts = starts[torch.randperm(len(starts), generator=draw)]
    return stream[starts[:, None] + torch.arange(CONTEXT)]


def learning_rate(step: int, steps: int) -> float:
    """Warm up linearly, hold, then let down along half a cosine."""
    held_until = (1 - LET_DOWN) * steps
    if step < held_until:
        return PEAK * min(1.0, (step + 1) / WARMUP)
    return PEAK * (
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - held_until) / (steps - held_until)))
    )


def train(
    model: GPT2LMHeadModel, stream: Tensor, line_starts: Tensor, steps: int, checkpoint: Path
) -> float:
    """Train in place for `steps` in all; return the seconds that took, over all resumed runs."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK,
        betas=(0.9, 0.98),
    )
    step, before = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, before = saved["step"], saved["seconds"]
        if step > steps:
            raise SystemExit(f"{checkpoint} is already at step {step}, past {steps}")
    begun, epoch, contexts, losses = time.monotonic(), -1, stream[:0], []
    batches_an_epoch = (len(stream) // CONTEXT - 1) // BATCH
    model.train()
    while step < steps:
        if step // batches_an_epoch != epoch:
            epoch = step // batches_an_epoch
            contexts = windows(stream, line_starts, epoch)
        index = step % batches_an_epoch
        batch = contexts[index * BATCH : (index + 1) * BATCH]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        step += 1
        if step % SAVE_EVERY == 0 or step == steps:
            seconds = before + time.monotonic() - begun
            mean = float(torch.stack(losses).mean())
            losses.clear()
            print(f"step {step}/{steps}  loss {mean:.3f}  {seconds:.0f} s", flush=True)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step, "seconds": seconds}, checkpoint)
    model.train(False)
    return before + time.monotonic() - begun


def training_stream(tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the texts' tokens, each text begun by END, and where lines start: int64[N], int64[M].

    A text starts a line, and so does what follows a newline.
    """
    end, newline = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("Ċ")
    encoded = tokenizer(list(texts), verbose=False).input_ids
    stream = torch.tensor([token for ids in encoded for token in (end, *ids)])
    starts = ((stream == newline) | (stream == end)).nonzero()[:, 0] + 1
    return stream, torch.cat([torch.zeros(1, dtype=torch.int64), starts])
