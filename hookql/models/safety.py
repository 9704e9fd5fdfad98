"""What a model's folder may make transformers do: read its own safetensors, and nothing else.

transformers follows what the files of a folder say, also to other files and other repositories.
Their JSON is read here first, by the plainest of readers.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from hookql.errors import Diagnostic, ModelError

LARGEST_JSON = 100_000_000
"""Bytes of a config or an index; what is larger is none."""

_INDEX = ".safetensors.index.json"
_BACKBONES = ("use_pretrained_backbone", "use_timm_backbone")


def check_files(folder: Path, name: str, *, allow_pickle: bool, trust_code: bool) -> None:
    """Look at the files of a checkpoint before anything is loaded from them.

    Raises:
        ModelError: weights outside the folder or, unless ``allow_pickle``, pickled ones; unless
            ``trust_code``, a config that names code or weights of other repositories.
    """
    for index in sorted(folder.glob("*.index.json")):
        shards = _json(index, name).get("weight_map")
        if isinstance(shards, Mapping):
            for shard in sorted({str(shard) for shard in shards.values()}):
                _check_shard(shard, index, name, allow_pickle)
    for file in ("config.json", "adapter_config.json"):
        if (folder / file).is_file() and not trust_code:
            _check_config(_json(folder / file, name), file, name)
    pickled_adapter = (folder / "adapter_model.bin").exists()
    if pickled_adapter and not allow_pickle and not (folder / "adapter_model.safetensors").exists():
        raise _unsafe(name, "adapter_model.bin is a pickle, which can run code when it is read")


MOST_MODULES = 200_000
MOST_LAYERS = 10_000
_FREE = 2**30  # numbers that any model may have besides its weights, such as tables of positions
_UNFOLDED = 16  # two weights of four bits in a byte, and each held in four bytes


@contextlib.contextmanager
def bounded(folder: Path | None) -> Iterator[None]:
    """While a model is built: no more modules, and no larger tensors, than its weights explain.

    Raises:
        TooLarge: as soon as a config asks for more, before any memory is taken for it.
    """
    modules, numbers = 0, 0
    files = [] if folder is None else [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    stored = sum(file.stat().st_size for file in files)
    most = _FREE + _UNFOLDED * stored if files else None

    def count_module(*_: object) -> None:
        nonlocal modules
        modules += 1
        if modules > MOST_MODULES:
            raise TooLarge(f"it asks for more than {MOST_MODULES:,} modules")

    def count_numbers(module: object, name: str, tensor: Tensor | None) -> None:
        nonlocal numbers
        numbers += 0 if tensor is None else tensor.numel()
        if most is not None and numbers > most:
            raise TooLarge("it asks for far more numbers than its files hold")

    hooks = [
        register_module_module_registration_hook(count_module),
        register_module_parameter_registration_hook(count_numbers),
        register_module_buffer_registration_hook(count_numbers),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class TooLarge(Exception):
    """A config that asks for more than any model has."""


def _check_shard(shard: str, index: Path, name: str, allow_pickle: bool) -> None:
    if "/" in shard or "\\" in shard or shard in ("", ".", ".."):
        raise _unsafe(name, f"{index.name} names weights outside the folder: `{_shown(shard)}`")
    if index.name.endswith(_INDEX) and not shard.endswith(".safetensors") and not allow_pickle:
        raise _unsafe(name, f"{index.name} names a file that is no safetensors: `{_shown(shard)}`")


def _check_config(config: Mapping[str, Any], file: str, name: str) -> None:
    for key, value in _items(config):
        text = value if isinstance(value, str) else ""
        if key.strip("_") in ("attn_implementation", "experts_implementation") and "/" in text:
            # transformers would fetch that repository and run what is in it.
            raise _unsafe(name, f"{file} asks for code from `{_shown(text)}`")
        if key.endswith(("layer", "layers")) and isinstance(value, int) and value > MOST_LAYERS:
            raise _unsafe(name, f"{file} asks for {value:,} layers (`{_shown(key)}`)")
        if key in _BACKBONES and value is True:
            raise _unsafe(name, f"{file} asks for weights of another repository (`{key}`)")
        if key == "transformers_weights" and not re.fullmatch(
            r"[\w.-]+\.safetensors(\.index\.json)?", text
        ):
            raise _unsafe(name, f"{file} names weights that are no safetensors: `{_shown(text)}`")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a config with its value, those of configs within it too."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, Mapping):
            yield from inner.items()
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner


def _json(file: Path, name: str) -> Mapping[str, Any]:
    if file.stat().st_size > LARGEST_JSON:
        raise _unsafe(name, f"{file.name} is far larger than any such file")
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return {}  # whoever needs it says so
    return value if isinstance(value, Mapping) else {}


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text[:100])


def _unsafe(name: str, why: str) -> ModelError:
    message = f"the files of `{name}` cannot be trusted: {why}"
    return ModelError(Diagnostic("unsafe-model", message))
