"""`during`: when a capture looks, and how the model is to generate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import define, field, frozen

from hookql.errors import did_you_mean
from hookql.language import ast
from hookql.language.lets import UNKNOWN, Lets
from hookql.language.query import CaptureSpec, During
from hookql.language.report import Report
from hookql.language.walk import literal

Value: TypeAlias = bool | int | float


@frozen
class _Argument:
    """One argument of `generate`: what it must be, in words and as bounds.

    ``above`` is not reached itself, unless ``least`` says that it is the smallest value.
    """

    kind: Literal["truth", "whole", "number"]
    must: str
    least: float = 0.0
    above: float = float("-inf")
    most: float = float("inf")

    def fits(self, value: Value) -> bool:
        """Whether a number is within the bounds."""
        return self.least <= value <= self.most and value > self.above


_MOST = 2**31 - 1
ARGUMENTS = {
    "max_new_tokens": _Argument("whole", "a whole number from 1", least=1, most=_MOST),
    "min_new_tokens": _Argument("whole", "a whole number from 0", most=_MOST),
    "do_sample": _Argument("truth", "`true` or `false`"),
    "temperature": _Argument("number", "a number above 0", above=0, most=1e9),
    "top_k": _Argument("whole", "a whole number from 1", least=1, most=_MOST),
    "top_p": _Argument("number", "a number above 0, at most 1", above=0, most=1),
    "repetition_penalty": _Argument("number", "a number above 0", above=0, most=1e9),
    "seed": _Argument("whole", "a whole number from 0", most=2**63 - 1),
}
"""What `generate` takes, each by its name."""

OF_SAMPLING = ("temperature", "top_k", "top_p", "seed")
"""Arguments that mean nothing unless tokens are drawn."""

_BEAMS = "beams feed the model tokens that end in no text"
_ASSISTED = "assisted decoding feeds the model tokens that it then takes back"
_SEVERAL = "one text is generated for each sample"
_ALWAYS_CACHED = "the cache of keys and values is always used"
_LENGTH = "lengths are counted in new tokens"
REFUSED: dict[str, tuple[str, str | None]] = {
    "num_beams": (_BEAMS, None),
    "num_beam_groups": (_BEAMS, None),
    "diversity_penalty": (_BEAMS, None),
    "length_penalty": (_BEAMS, None),
    "early_stopping": (_BEAMS, None),
    "num_return_sequences": (_SEVERAL, "give a sample several times, each a line of the data"),
    "assistant_model": (_ASSISTED, None),
    "num_assistant_tokens": (_ASSISTED, None),
    "prompt_lookup_num_tokens": (_ASSISTED, None),
    "assistant_early_exit": (_ASSISTED, None),
    "penalty_alpha": ("contrastive search feeds the model tokens that it does not choose", None),
    "use_cache": (_ALWAYS_CACHED, None),
    "max_length": (_LENGTH, "write `max_new_tokens=32`"),
    "min_length": (_LENGTH, "write `min_new_tokens=1`"),
}
"""Arguments of transformers' `generate` that are refused, why, and what to do instead."""


def read_during(report: Report, lets: Lets, node: ast.During | None) -> During | None:
    """The clause of one capture; None where there is none, or where it is wrong and reported."""
    if node is None:
        return None
    if node.phase not in ("prompt", "generate"):
        report.error(
            "unknown-phase",
            f"there is no phase `{node.phase}`",
            node.span,
            did_you_mean(node.phase, ("prompt", "generate")),
            ("phases: prompt, generate(...)",),
        )
        return None
    if node.phase == "generate":
        return _Generate(report, lets, node).read()
    if node.arguments:
        report.error("bad-argument", "`prompt` takes no arguments", node.span)
    return During("prompt", span=node.span)


def check_one_way(report: Report, captures: Sequence[CaptureSpec]) -> None:
    """Report captures that look at another run than the first one does."""
    if len({_shown(spec.during) for spec in captures}) < 2:
        return
    first = _shown(captures[0].during)
    other = next(spec for spec in captures if _shown(spec.during) != first)
    span = other.span if other.during is None else other.during.span
    kinds = {"prompt" if d is None else d.phase for d in (captures[0].during, other.during)}
    if len(kinds) == 1:
        message = "the captures of a query look at one generation, and these two differ"
    else:
        message = "one capture looks while the model generates, and another at the prompts alone"
    help = "give all of them the same `during`, or write two queries"
    if len(kinds) == 2:
        help = "give all of them `during generate`; `where phase == prompt` keeps the prompts"
    notes = (f"the first capture looks {first}", f"this one looks {_shown(other.during)}")
    report.error("mixed-phases", message, span, help, notes)


def _shown(during: During | None) -> str:
    """``during generate(max_new_tokens=32)``, the arguments in the order of the table."""
    if during is None or during.phase == "prompt":
        return "during prompt"
    given = [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name in ARGUMENTS
        if (value := during.arguments.get(name)) is not None
    ]
    return f"during generate({', '.join(given)})"


@define
class _Generate:
    """Reads the arguments of one `generate`; wrong ones are reported and left out."""

    report: Report
    lets: Lets
    node: ast.During
    given: dict[str, Value] = field(factory=dict)
    at: dict[str, ast.Argument] = field(factory=dict)

    def read(self) -> During:
        for argument in self.node.arguments or ():
            self._take(argument)
        if self.given.get("do_sample") is not True:
            self._without_sampling()
        least, most = self.given.get("min_new_tokens"), self.given.get("max_new_tokens")
        if least is not None and most is not None and least > most:
            message = "`min_new_tokens` is above `max_new_tokens`"
            self.report.error("bad-parameter", message, self.at["min_new_tokens"].span)
        return During("generate", self.given, self.node.span)

    def _take(self, argument: ast.Argument) -> None:
        name = argument.name
        if name is None:
            message = "`generate` takes its arguments by name"
            help = f"write `max_new_tokens={literal(argument.value) or 32}`"
            self.report.error("bad-argument", message, argument.span, help)
        elif name in REFUSED:
            message, help_ = REFUSED[name]
            what = f"`generate` takes no `{name}` here: {message}"
            self.report.error("no-such-generation", what, argument.span, help_)
        elif name not in ARGUMENTS:
            self.report.error(
                "unknown-parameter",
                f"`generate` has no parameter `{name}`",
                argument.span,
                did_you_mean(name, ARGUMENTS),
                (f"parameters: {', '.join(ARGUMENTS)}",),
            )
        elif name in self.at:
            message = f"`{name}` is given twice"
            self.report.error("duplicate-parameter", message, argument.span)
        else:
            self.at[name] = argument
            self._keep(name, argument)

    def _keep(self, name: str, argument: ast.Argument) -> None:
        """Take in a value that will do."""
        expanded = self.lets.expand(argument.value)
        if expanded is None or expanded is UNKNOWN:
            return
        known, value = ARGUMENTS[name], _constant(expanded)
        whole = isinstance(value, int | float) and value == value // 1
        right = isinstance(value, bool) == (known.kind == "truth") and value is not None
        if not right or (known.kind == "whole" and not whole) or not known.fits(value or 0):
            message = f"`{name}` of `generate` must be {known.must}"
            help = None
            if known.kind == "truth" and isinstance(expanded, ast.Name):
                help = did_you_mean(expanded.id.lower(), ("true", "false"))
            self.report.error("bad-parameter", message, argument.value.span, help)
        elif value is not None:
            self.given[name] = {"truth": bool, "whole": int, "number": float}[known.kind](value)

    def _without_sampling(self) -> None:
        """Report what says how tokens are drawn, where none are."""
        for name in OF_SAMPLING:
            if name in self.at and "do_sample" not in self.at.keys() - self.given.keys():
                message = f"`{name}` changes nothing: the likeliest token is taken each time"
                help = "to draw tokens, add `do_sample=true`"
                self.report.error("needs-sampling", message, self.at[name].span, help)


def _constant(node: ast.Expression) -> Value | None:
    """What a literal writes out: a number, `true` or `false`; None for anything else."""
    if isinstance(node, ast.Name):
        return {"true": True, "false": False}.get(node.id)
    return literal(node)
