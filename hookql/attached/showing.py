"""Showing calls to detectors, and what becomes of one that fails, returns something or writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field
from torch import Tensor, nn

from hookql.attached.detector import Call, Detector
from hookql.attached.rows import Unfit
from hookql.attached.tokens import TokenReader, Tokens
from hookql.errors import Diagnostic, HookQLError, ModelError, raised_in
from hookql.models.hooks import own_passes, recomputing, undisturbed
from hookql.models.paranoid import is_paranoid, unchanged
from hookql.models.paths import Match
from hookql.models.ports import PortReader


@define(eq=False)
class Passes:
    """The passes of one model, as its detectors need to know them."""

    root: nn.Module
    number: int = -1  # of the latest, from 0
    open: bool = False  # whether it still goes on
    failure: ModelError | None = None  # of a detector in it
    reader: TokenReader = field(init=False)
    _tokens: Tokens | None = None

    def __attrs_post_init__(self) -> None:
        self.reader = TokenReader(self.root)

    @property
    def tokens(self) -> Tokens:
        """The tokens of the pass that goes on; outside one there are none."""
        outside = "the module is called outside a pass of the whole model"
        return self._tokens or Tokens({}, outside)

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A pass begins; one before it that was left by Ctrl-C is over."""
        if own_passes() or recomputing():
            return
        self.number, self.open, self.failure = self.number + 1, True, None
        self._tokens = self.reader.read(args, kwargs)

    def end(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """A pass is over. Raises what a detector raised and the model did not let through."""
        if own_passes() or recomputing():
            return
        failure, self.failure = self.failure, None
        self.open, self._tokens = False, None
        if failure is not None and output is not None:
            raise failure


@define(eq=False)
class Seat:
    """One detector at one site."""

    passes: Passes
    detector: Detector
    match: Match
    reader: PortReader
    seen: int = 0  # the calls of the module so far
    paranoid: bool = field(factory=is_paranoid)

    def show(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """Show one call, unless the detector is disabled or nobody but HookQL makes the call."""
        if not self.detector.enabled or own_passes() or recomputing():
            return
        try:
            self._show(module, args, kwargs, output)
        except ModelError as error:
            if self.match.module:  # what the model's own hooks raise nobody in it can swallow
                self.passes.failure = self.passes.failure or error
            raise
        finally:
            self.seen += 1

    def _show(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        passes, detector = self.passes, self.detector
        batch = passes.number if passes.open else None
        tokens = passes.reader.of(module, passes.tokens)
        # A copy of the keywords: of a call that is to come they are the ones that it takes.
        call = Call(
            self.match.module, self.match.point, batch, args, dict(kwargs), output,
            tokens, self.reader, self.match.view,
        )  # fmt: skip
        shown = {"input": args, "kwargs": kwargs, "output": output}
        watch = unchanged(self._who(), self._where(), shown, bits=self.paranoid)
        outer, detector._call = detector._call, call
        try:
            with watch:
                returned = self._processed(module, call)
        finally:
            detector._call = outer
        if returned is not None:
            raise self._returned(returned)
        self._detach()

    def _detach(self) -> None:
        """Let go of the graphs of what the detector keeps as tensors."""
        kept: Any = self.detector.tensor_metadata
        wrong = (
            [kept]
            if not isinstance(kept, dict)
            else [v for v in kept.values() if not isinstance(v, Tensor)]
        )
        if wrong:
            given = TypeError(
                f"`tensor_metadata` holds tensors by name, not {type(wrong[0]).__name__}"
            )
            raise self._failed(given) from given
        for name, tensor in kept.items():
            if tensor.requires_grad:
                kept[name] = tensor.detach()

    def _processed(self, module: nn.Module, call: Call) -> Any:
        # To whoever writes a detector it may return anything, whatever its type says.
        process: Any = self.detector.process_activations
        try:
            with undisturbed():
                return process(module, call.args, call.output)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> ModelError:
        message = f"{self._who()} failed at {self._where()}"
        if isinstance(error, Unfit):
            notes = (str(error),)
            return ModelError(Diagnostic("detector-failed", message, help=error.help, notes=notes))
        if isinstance(error, HookQLError):
            first = error.diagnostics[0]
            return ModelError(
                Diagnostic("detector-failed", message, help=first.help,
                           notes=(first.message, *first.notes))
            )  # fmt: skip
        where = raised_in(error, type(self.detector).__module__)
        notes = (f"{type(error).__name__}: {error}{where}",)
        return ModelError(Diagnostic("detector-failed", message, notes=notes))

    def _returned(self, value: Any) -> ModelError:
        message = f"{self._who()} returned `{type(value).__name__}` at {self._where()}"
        help = "keep it in the detector: what the model computes is never changed"
        return ModelError(Diagnostic("detector-returned", message, help=help))

    def _who(self) -> str:
        return f"{type(self.detector).__name__} `{self.detector.id}`"

    def _where(self) -> str:
        if self.passes.open:
            when = f"batch {self.passes.number}"
        else:
            when = f"call {self.seen} of the module, outside a pass of the model"
        return f"`{self.match.point}`, {when}"
