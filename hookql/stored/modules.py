"""What a model in memory is: all that its numbers depend on, or the reason why nobody can say.

Nothing is picked out as important. Every attribute of every module is told to the hash, configs to
their last private field; the few that are left out are named below with the reason. What cannot be
told (a hook, a function of the user's, an object that is not known) makes the whole model one whose
answers are not kept.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn

from hookql.models.hooks import is_ours
from hookql.stored.code import code_of, from_packages, function_told
from hookql.stored.contents import contents, sums
from hookql.stored.telling import Strange, tell

# Hooks of forward passes: each may change what comes out.
_HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward hook",
}
# Told elsewhere, or bookkeeping of those hooks; what reads and writes state dicts runs in no pass.
_ASIDE = frozenset(
    {
        *_HOOKS,
        "_parameters",
        "_buffers",
        "_modules",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
        "_forward_pre_hooks_with_kwargs",
        "_is_full_backward_hook",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
        "_is_hf_initialized",  # whether a loader has to fill its weights, which are told
    }
)
# Warnings that were given once, and a `hash()` that is another in each process.
_TRACES = frozenset(
    {"deprecation_warnings", "_warnings", "warnings_issued", "_original_object_hash"}
)


Tensors = Sequence[tuple[str, str, str | None]]
"""A model's tensors in order: name, dtype and shape; and layout, device and the sha256 of its
bytes, None where it is not in memory."""


def weights_and_state(module: nn.Module) -> tuple[dict[str, str], Tensors]:
    """The hashes ``weights``, ``modules`` and ``code`` of a model; and its tensors, each by itself.

    ``weights`` is of names, types and bytes of all tensors, buffers and those in attributes too;
    ``modules`` of everything else that the modules hold; ``code`` of the classes. Raises Strange.
    """
    _check_global_hooks()
    told = _Told()
    told.value("the model", module)
    digest = hashlib.sha256()
    found: list[tuple[str, str, str | None]] = []
    for label, tensor, of in zip(told.labels, told.tensors, contents(told.tensors), strict=True):
        digest.update(f"{label}\0{of}\0".encode("utf-8", "surrogatepass"))
        name = label.split(" ")[0]
        kind = f"{tensor.dtype} {tuple(tensor.shape)}"
        lies = f"{tuple(tensor.stride())} {tensor.device} {of}"
        found.append((name, kind, None if tensor.is_meta else lies))
    facts = {
        "weights": f"sha256:{digest.hexdigest()}",
        "modules": f"sha256:{told.digest.hexdigest()}",
        "code": f"sha256:{code_of(told.kinds)}",
    }
    return facts, found


def state_in_memory(module: nn.Module) -> str:
    """A hash that is the same while nothing of a model in memory is touched. Raises Strange.

    Quicker than names for all time: of weights it has the places, and what their bytes add up to.
    """
    _check_global_hooks()
    told = _Told()
    told.value("the model", module)
    told.digest.update(code_of(told.kinds).encode())
    for label, tensor, added in zip(told.labels, told.tensors, sums(told.tensors), strict=True):
        told.digest.update(f"{label}\0{tensor.data_ptr()}\0".encode("utf-8", "surrogatepass"))
        told.digest.update(added)
    return str(told.digest.hexdigest())


def state_of(value: Any) -> str:
    """A hash of an object of transformers' and its code, a tokenizer's. Raises Strange."""
    told = _Told()
    told.value(type(value).__name__, value)
    for name, of in zip(told.labels, contents(told.tensors), strict=True):
        told.digest.update(f"{name}\0{of}\0".encode("utf-8", "surrogatepass"))
    return f"sha256:{told.digest.hexdigest()}, code {code_of(told.kinds)[:16]}"


def _check_global_hooks() -> None:
    every = torch.nn.modules.module
    names = ("_global_forward_hooks", "_global_forward_pre_hooks")
    if any(not is_ours(hook) for name in names for hook in getattr(every, name).values()):
        raise Strange("a forward hook for all modules is registered")
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        raise Strange("a torch mode is active that may change what operations do")


@define
class _Told:
    """What has been told so far: a hash, the tensors met, the classes met, each object once."""

    digest: Any = field(factory=hashlib.sha256)
    tensors: list[Tensor] = field(factory=list)
    labels: list[str] = field(factory=list)
    kinds: set[type] = field(factory=set)
    _seen: dict[int, int] = field(factory=dict)
    _alive: list[Any] = field(factory=list)

    def value(self, where: str, value: Any) -> None:
        """Tell a value that stands at ``where``, which messages name it by."""
        tell(self.digest.update, value, functools.partial(self._other, where))

    def _other(self, where: str, value: Any) -> None:
        add = self.digest.update
        kind = type(value)
        if isinstance(value, torch.dtype | torch.device | torch.Size | torch.layout):
            add(f"torch({value!r})".encode())
        elif kind is slice:
            add(repr(value).encode())
        elif isinstance(value, enum.Enum):
            add(f"e({kind.__qualname__}.{value.name})".encode())
        elif isinstance(value, type):
            add(f"c({value.__module__}.{value.__qualname__})".encode())
            self._class(where, value)
        elif isinstance(value, Tensor):
            self._tensor(where, value)
        elif isinstance(value, FunctionType | BuiltinFunctionType):
            add(b"F" + function_told(where, value))
        elif isinstance(value, functools.partial):
            add(b"P")
            self.value(where, (value.func, value.args, value.keywords))
        elif isinstance(value, MethodType):
            add(b"M" + function_told(where, value))
            self.value(where, value.__self__)
        elif kind.__module__ == "tokenizers":
            add(_rust(where, value))
        elif not self._again(value):
            if isinstance(value, nn.Module):
                self._module(where, value)
            else:
                self._object(where, value)

    def _again(self, value: Any) -> bool:
        """Whether an object was told before: then its number is enough, which also tells ties."""
        number = self._seen.get(id(value))
        if number is None:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)  # so that no other object takes its id
            return False
        self.digest.update(b"o%d:" % number)
        return True

    def _class(self, where: str, kind: type) -> None:
        if not from_packages(kind):
            if kind.__module__ in ("builtins", "collections"):
                return
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise Strange(f"`{where}` is `{name}`, which is not code of torch or transformers")
        self.kinds.add(kind)

    def _tensor(self, where: str, tensor: Tensor) -> None:
        if self._again(tensor):
            return
        shape, stride = tuple(tensor.shape), tuple(tensor.stride())
        self.tensors.append(tensor)
        self.labels.append(f"{where} {tensor.dtype} {shape} {stride} {tensor.device}")

    def _module(self, where: str, module: nn.Module) -> None:
        kind = type(module)
        self._class(where, kind)
        self.digest.update(f"M{kind.__module__}.{kind.__qualname__}{{".encode())
        for name, said in _HOOKS.items():
            if any(not is_ours(hook) for hook in getattr(module, name).values()):
                raise Strange(f"`{where}` has {said}, which may change what it computes")
        for name, value in vars(module).items():
            if name not in _ASIDE:
                self._attribute(where, name, value)
        for held in (module._parameters, module._buffers, module._modules):
            for name, value in held.items():
                self._attribute(where, name, value)
            self.digest.update(b";")
        self.digest.update(b"}")

    def _object(self, where: str, value: Any) -> None:
        """An object of torch's or transformers': its class and all its attributes."""
        kind = type(value)
        plain = type(getattr(value, "__dict__", None)) is dict
        if (
            not from_packages(kind)
            or not plain
            or any("__slots__" in vars(b) for b in kind.__mro__)
        ):
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise Strange(f"`{where}` is a `{name}`, and nobody can tell one from another")
        self._class(where, kind)
        self.digest.update(f"O{kind.__module__}.{kind.__qualname__}{{".encode())
        plain_kinds: tuple[Any, ...] = (dict, list, str, int)
        for base in plain_kinds:
            if isinstance(value, base):
                self.value(where, base(value))
        for name, inner in vars(value).items():
            if name not in _TRACES:
                self._attribute(where, name, inner)
        self.digest.update(b"}")

    def _attribute(self, where: str, name: str, value: Any) -> None:
        self.digest.update(f".{name}=".encode("utf-8", "surrogatepass"))
        self.value(name if where == "the model" else f"{where}.{name}", value)


def _rust(where: str, value: Any) -> bytes:
    """A tokenizer of the package `tokenizers`, or a token that was added to one."""
    name = type(value).__name__
    if name == "AddedToken":
        return f"A({value!r})".encode("utf-8", "surrogatepass")
    try:
        written: str = value.to_str()
    except Exception as error:  # a part of it is Python's own
        raise Strange(f"`{where}` has parts that cannot be written down") from error
    return written.encode("utf-8", "surrogatepass")
