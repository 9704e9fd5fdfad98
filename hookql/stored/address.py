"""The address of an answer: everything that its numbers depend on, and where it is kept.

What is part of it is not a list of what matters. It is all that the run was given, less what is
named in `_ASIDE`, so that an option that is added tomorrow makes another address by itself.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen

import hookql.stored as stored
from hookql.data.samples import Dataset
from hookql.language.pieces import PIECES, used_in
from hookql.language.query import Query
from hookql.models.load import Model
from hookql.optimizer.rules import chosen
from hookql.options import RunOptions
from hookql.results.provenance import installed
from hookql.stored.arithmetic import arithmetic
from hookql.stored.modules import Tensors, state_of, weights_and_state
from hookql.stored.telling import Strange, refused, tell

# Options that say how a run is kept or watched, and those that the loaded model has followed.
_ASIDE = frozenset(
    {
        *("store", "checkpoint", "resume", "checkpoint_every"),
        *("force", "into_anywhere", "paranoid"),
        *("revision", "dtype", "device", "device_map", "attn"),
        *("trust_remote_code", "allow_pickle"),
        "optimize",  # told as the rules that it means
    }
)


@frozen
class Address:
    """What an answer depends on, fact by fact, and a hash of that; ``read`` is as a run says it.

    ``read`` is the data set's own fingerprint when the address was made, None for tensors.
    ``tensors`` are the weights one by one, of which ``facts`` have the hash of all.
    """

    facts: Mapping[str, str]
    read: str | None
    tensors: Tensors = field(default=(), eq=False, repr=False)

    @property
    def name(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def address_of(
    query: Query,
    model: Model,
    dataset: Dataset | None,
    inputs: Mapping[str, Any] | None,
    options: RunOptions,
) -> Address:
    """The address of a query's answer; the data is read once for it.

    Raises Strange where a part has no identity, DataError where the data cannot be read.
    """
    _check_query(query)
    data, read = _inputs(inputs) if dataset is None else _samples(dataset)
    facts, tensors = facts_of_model(query, model, options)
    return Address({**facts, "data": data}, read, tensors)


def facts_of_model(
    query: Query, model: Model, options: RunOptions
) -> tuple[dict[str, str], Tensors]:
    """All of an address but the data, which can be looked at again after a run; and the tensors."""
    if model.part is None and any(p.is_meta for p in model.module.parameters()):
        raise Strange("some weights are not in memory")
    of_module, tensors = weights_and_state(model.module)
    facts = {
        "query": query.canonical,
        "model": f"{model.name} ({model.class_name}), {model.revision or 'no revision'}",
        **of_module,
        "dtype": model.dtype,
        "device": str(model.device),
        "attention": str(model.attn),
        "tokenizer": "none" if model.tokenizer is None else _tokenizer(model.tokenizer),
        "options": _options(options),
        "arithmetic": arithmetic(model.device),
        "hookql": f"numbers {stored.NUMERIC_VERSION}, source {_source()}",
        "versions": json.dumps(installed()),
    }
    return facts, tensors


def _check_query(query: Query) -> None:
    """Refuse a query whose numbers come of chance or of code from outside."""
    during = query.generation
    if during is not None and during.arguments.get("do_sample"):
        raise Strange("its tokens are drawn by chance")
    pieces = used_in(query.canonical)
    if pieces or any(kind == "family" for kind, _ in PIECES):
        name = next(iter(pieces), "a table of canonical sites")
        raise Strange(f"`{name}` is code from outside HookQL")


def _tokenizer(tokenizer: Any) -> str:
    return f"{type(tokenizer).__name__}, {state_of(tokenizer)}"


def _options(options: RunOptions) -> str:
    given: Mapping[str, Any] = options
    rules = {"rules": ", ".join(sorted(chosen(options.get("optimize"))))}
    return json.dumps(
        rules
        | {
            name: f"{type(value).__name__} {value!r}"
            for name, value in sorted(given.items())
            if name not in _ASIDE and value is not None and value is not False
        }
    )


def _samples(dataset: Dataset) -> tuple[str, str]:
    """What data says, read anew; and the data set's own fingerprint of this reading."""
    if not dataset.reads_again:
        raise Strange(f"{dataset.source} can be read only once")
    digest = hashlib.sha256()
    parts: list[bytes] = []
    for sample in dataset:
        said = None if sample.said is None else list(sample.said)
        tell(parts.append, [sample.index, sample.text, dict(sample.row), said])
        if len(parts) > 10_000:
            digest.update(b"".join(parts))
            parts.clear()
    tell(parts.append, [dataset.source, dataset.columns])
    digest.update(b"".join(parts))
    return f"{dataset.source}, sha256:{digest.hexdigest()}", dataset.fingerprint


def _inputs(inputs: Mapping[str, Any] | None) -> tuple[str, None]:
    digest = hashlib.sha256()

    def tensor(value: Any) -> None:
        if type(value) is not torch.Tensor or value.layout is not torch.strided:
            refused(value)
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"t{value.dtype}{tuple(value.shape)}{value.device}:".encode())
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)

    tell(digest.update, dict(inputs or {}), tensor)
    return f"inputs, sha256:{digest.hexdigest()}", None


@functools.cache
def _source() -> str:
    """A hash of HookQL's own files: another source may mean other numbers, its version the same."""
    root = Path(stored.__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.lark")]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
