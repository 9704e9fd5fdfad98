"""What a detector is: a class that is called with what its modules take and return."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from attrs import field, frozen
from torch import Tensor, nn

from hookql.attached.tokens import Tokens
from hookql.errors import Diagnostic, UsageError
from hookql.models.ports import HookPoint, PortReader
from hookql.models.views import View

Scalar = bool | int | float | str


@frozen(eq=False)
class Call:
    """The call of a module that a detector is shown: `Detector.call`, while it is shown.

    ``path`` is the module's full name, "" the model itself. ``batch`` is the number of the model's
    pass since `attach`, from 0; None where the module is called outside one. ``args`` and
    ``kwargs`` are what the module was called with, ``output`` what it returned, None for a site
    with the port `:input`, which is shown before the module runs.
    """

    path: str
    point: HookPoint
    batch: int | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    tokens: Tokens
    reader: PortReader = field(repr=False)
    view: View | None = None

    @property
    def tensor(self) -> Tensor:
        """The one tensor that the site names, as `x` is in a query: the model's own, attached.

        Of a plain path the first tensor that the module returns. Raises ModelError where there is
        none.
        """
        if self.point.side == "input":
            found = self.reader.input(self.args, self.kwargs)
        else:
            found = self.reader.output(self.output)
        if self.view is None:
            return found
        rows = self.view(found.flatten(0, 1))
        return rows.reshape(*found.shape[:2], *rows.shape[1:])

    @property
    def ids(self) -> Tensor | None:
        """The token ids of this pass, (samples, positions); None where it was given none."""
        return self.tokens.ids

    @property
    def mask(self) -> Tensor | None:
        """Which of them are no padding, bool (samples, positions).

        Read from the model's own call, where padding may stand on either side; None where the call
        does not say.
        """
        return self.tokens.mask


class Detector:
    """Subclass it, say what becomes of a module's call, and `attach` it.

    >>> class Norms(Detector):
    ...     def process_activations(self, module, input, output):
    ...         norm = self.call.tensor.norm(dim=-1).mean()
    ...         self.metadata["norm"] = float(norm)

    An ``__init__`` of your own need not call this one's. ``metadata`` holds scalars and
    ``tensor_metadata`` tensors, by name; these are detached from their graph after each call. What
    a detector is shown is the model's own: it reads or copies, and writes into nothing.
    """

    shareable: ClassVar[bool] = True
    """Whether one detector may stand at several sites: False where its numbers are of one."""

    _numbers: ClassVar[Any] = itertools.count(1)

    id: str
    enabled: bool
    metadata: dict[str, Scalar]
    tensor_metadata: dict[str, Tensor]
    _call: Call | None
    _sites: list[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """All that attaching needs, so that subclasses owe this class nothing."""
        made = super().__new__(cls)
        made.id = f"{cls.__name__}-{next(Detector._numbers)}"
        made.enabled = True
        made.metadata, made.tensor_metadata = {}, {}
        made._call, made._sites = None, []
        return made

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> None:
        """Look at one call of a module.

        ``input`` are its positional arguments; those by keyword are in ``self.call.kwargs``.
        ``output`` is what it returned: a tensor, a tuple, whatever it may be. ``self.call`` knows
        more: the module's path, the batch, the tensor that the site names, ids and mask. Returns
        nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} has no process_activations")

    def get_captured(self) -> Any:
        """What it has captured: here its metadata of both kinds, by name."""
        return {**self.metadata, **self.tensor_metadata}

    def clear_captured(self) -> None:
        """Forget it; here the metadata of both kinds."""
        self.metadata.clear()
        self.tensor_metadata.clear()

    def enable(self) -> None:
        """Be shown calls again."""
        self.enabled = True

    def disable(self) -> None:
        """Be shown none until `enable`."""
        self.enabled = False

    @property
    def call(self) -> Call:
        """The call that is shown now. Raises UsageError outside `process_activations`."""
        if self._call is None:
            message = f"`call` of {self.id} is there only while it is shown one"
            help = "read it in process_activations"
            raise UsageError(Diagnostic("no-call", message, help=help))
        return self._call
