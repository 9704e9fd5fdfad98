"""Draws the parts of a query, one by one; see `queries`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

from tests.reference.atoms import of_place, of_row, of_text, of_token
from tests.reference.models import Subject
from tests.reference.places import Where
from tests.reference.thresholds import observed, threshold

Draw = Callable[[st.SearchStrategy[Any]], Any]


@frozen(eq=False)
class Maker:
    """Draws the parts of one capture over given sites."""

    draw: Draw
    subject: Subject
    where: Where

    def one(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def chance(self, share: float) -> bool:
        # The simplest example is without.
        return bool(self.draw(st.integers(0, 99)) >= 100 - 100 * share)

    def cut(self, expression: str) -> str:
        """A number in a gap of the expression's values."""
        share = self.one(0.5, 0.2, 0.8, 0.95)
        return threshold(self.subject, expression, self.where.text, share)

    @property
    def causal(self) -> bool:
        return self.subject.family != "bert"

    # --- predicates ------------------------------------------------------------------------------

    def predicate(self, depth: int = 2, values: bool = True) -> str:
        """What is true or false of a token."""
        kind = self.draw(st.integers(0, 9)) if depth else 0
        if kind < 5:
            return self.atom(values)
        if kind < 7:
            return f"not ({self.predicate(depth - 1, values)})"
        word = " and " if kind == 7 else " or "
        return word.join(f"({self.predicate(depth - 1, values)})" for _ in range(2))

    def atom(self, values: bool) -> str:
        makers: list[Callable[[], str]] = [
            partial(make, self.one) for make in (of_token, of_place, of_row, of_text)
        ]
        if self.causal:
            makers.append(self.of_signal)
        if values:
            makers.append(self.of_value)
        return str(self.one(*makers)())

    def of_signal(self) -> str:
        name = self.one("surprisal", "loss", "prob", "rank", "entropy")
        if name == "rank":
            return f"rank {self.one('<', '>=', '==')} {self.one(1, 0, 20)}"
        if self.chance(0.1):
            return f"{name} == none"
        return f"{name} {self.one('<', '>', '<=', '>=')} {self.cut(name)}"

    def of_value(self) -> str:
        number = self.number()
        op = self.one("<", ">", "<=", ">=")
        if self.chance(0.2):
            both = f"({number} + position)"
            return f"{number} + position {op} {self.cut(both)}"
        return f"{number} {op} {self.cut(number)}"

    # --- expressions -----------------------------------------------------------------------------

    def stems(self) -> list[str]:
        """One vector or two of the same axes; the last axis is `feature` or `key`."""
        where = self.where
        stems = self.one(["x"], ["input", "output"], ["output", "x"]) if where.pairs else ["x"]
        if where.heads and self.chance(0.3):
            stems = [f"{stem}[head={self.one(*range(where.heads))}]" for stem in stems]
        if where.dims[-1] == "feature" and self.chance(0.3):
            part = self.one("[1:4]", "[[0, 3]]", "[:-2]", "[::2]", "[-3:]")
            stems = [stem + part for stem in stems]
        return list(stems)

    def vector(self, stems: Sequence[str], depth: int = 2) -> str:
        """Numbers with the stem's axes."""
        if not depth or self.chance(0.3):
            return str(self.one(*stems))
        inner = self.vector(stems, depth - 1)
        kind = self.draw(st.integers(0, 5))
        if kind == 0:
            return f"{self.one('abs', 'square', 'relu', 'exp', 'sign')}({inner})"
        if kind == 1:
            return str(
                self.one(
                    f"-{inner}" if not inner.startswith("-") else inner,
                    f"sqrt(abs({inner}))",
                    f"log({inner})",
                    f"log(1 + square({inner}))",
                    f"clip({inner}, -0.5, 1)",
                    f"({inner}) ** 2",
                )
            )
        if kind == 2:
            return f"({inner} {self.one('+', '-', '*', '/')} {self.one('2', '0.5', '3')})"
        if kind == 3:
            other = self.one(*stems, f"norm({stems[0]})", self.column(), self.column())
            return f"({inner} {self.one('*', '+', '-')} {other})"
        if "key" not in self.where.dims:
            return f"softmax({inner})"
        return inner

    def answer(self, stems: Sequence[str], depth: int = 2) -> str:
        """What a statistic is of: numbers with the stem's axes, or true and false there."""
        inner = self.vector(stems, depth)
        return self.truth(inner) if self.chance(0.3) else inner

    def truth(self, inner: str) -> str:
        """Of each number whether something holds."""
        if self.chance(0.15):
            return str(self.one(f"isfinite({inner})", f"isnan(log({inner}))"))
        compared = f"({inner} {self.one('>', '<=', '<', '>=')} {self.cut(inner)})"
        if self.chance(0.2):
            return f"({compared} and {self.predicate(1, False)})"
        if self.chance(0.1):
            return f"(not {compared})"
        return compared

    def column(self) -> str:
        """A number of the token alone."""
        choices = ["position", "length", "(position + 1)", "row.weight", "sample"]
        choices.append("content_position")
        return str(self.one(*choices, *(["surprisal", "prob", "rank"] if self.causal else [])))

    def reduced(self, stems: Sequence[str]) -> str:
        """A vector without its last axis."""
        inner = self.vector(stems, 1)
        choices = [
            f"norm({inner})",
            f"norm({inner}, 1)",
            f"argmax({inner})",
            f"dot({inner}, {stems[-1]})",
        ]
        if "key" in self.where.dims:
            # The rows of a pattern are cut to what a query sees; that is what these are of.
            first = stems[0]
            choices = [f"norm({first})", f"argmax({first})", f"entropy({first})"]
            choices += [f"{first}[key={self.one(0, 1, 4)}]", f"norm({first}, 1)", f"{first}[0]"]
        else:
            choices += [
                f"cos({inner}, {stems[-1]})",
                f"entropy(softmax({inner}))",
                f"kl(softmax({stems[0]}), softmax({inner}))",
                f"{stems[0]}[{self.one(0, 1, -1)}]",
                f"{stems[0]}[feature={self.one(0, 1, -1)}]",
            ]
        if self._has_lens(stems):
            choices += [
                f"lens({stems[0]})[{self.one(77, 5)}]",
                f"argmax(lens({stems[0]}))",
                f"entropy(softmax(lens({stems[0]})))",
            ]
        return str(self.one(*choices))

    def summary(self, stems: Sequence[str]) -> str:
        """What a statistic is of, without the last axis: a number, or true or false."""
        if self._has_lens(stems) and self.chance(0.2):
            return str(
                self.one(f"argmax(lens({stems[0]})) == next", f"argmax(lens({stems[-1]})) != token")
            )
        inner = self.reduced(stems)
        return self.truth(inner) if self.chance(0.2) else inner

    def _has_lens(self, stems: Sequence[str]) -> bool:
        where = self.where
        whole = all(stem in ("x", "input", "output") for stem in stems)
        return (
            self.causal
            and where.dims == ("feature",)
            and where.width == 16
            and whole
            and (where.pairs or where.text.startswith(("@resid", "@attn", "@mlp_out", "@embed")))
        )

    def number(self) -> str:
        """One number a token."""
        stems = self.stems()
        while self.where.heads and "[head=" not in stems[0]:
            head = self.one(*range(self.where.heads))
            stems = [
                stem.replace("x", f"x[head={head}]", 1) if "[head=" not in stem else stem
                for stem in stems
            ]
        return self.reduced(stems)

    # --- statistics ------------------------------------------------------------------------------

    def statistic(self, number: int, pool: Sequence[str]) -> str:
        """One statistic, called `s` and its number; the expression keeps the axes of `pool`."""
        stems = self.stems() if not {"head", "feature"} & set(pool) else ["x"]
        key = self.where.dims[-1] == "key"
        form = self.draw(st.integers(0, 9))
        keep = bool({"head", "feature"} & set(pool))
        if keep or form < 3:
            value = self.answer(stems) if form else "x"
        elif form < 8:
            value = self.summary(stems)
        else:
            value = self.one(self.answer(stems, 1), self.column())
        has_key = self._keeps_key(value)
        names = ["mean", "sum", "std", "var", "min", "max", "rms", "skew", "kurtosis"]
        names += ["median", "quantile", "hist"]
        if not keep and "layer" not in pool and not has_key:
            names += ["top", "bottom", "top"]
        name = self.one(*names)
        if not pool and not key and self.chance(0.1):
            name, value = self.one("cov", "corr", "gram"), self.vector(stems, 1)
            if self.where.width > 24:
                value = self.one("x[2:7]", "x[[1, 5, 3]]")
        if self.chance(0.1):
            return (
                f"count as s{number}"
                if self.chance(0.5)
                else f"{name}({value}) as s{number}"
                if (name not in ("quantile", "hist", "top", "bottom"))
                else f"mean({value}) as s{number}"
            )
        return f"{name}({self._arguments(name, value)}) as s{number}"

    def _keeps_key(self, value: str) -> bool:
        """Whether a value of a pattern still has its keys."""
        lost = ("norm(", "argmax(", "entropy(", "[key=", "[0]")
        return self.where.dims[-1] == "key" and "x" in value and not any(w in value for w in lost)

    def _arguments(self, name: str, value: str) -> str:
        if name in ("var", "std"):
            return str(self.one(value, f"{value}, ddof=1", f"{value}, 1"))
        if name == "quantile":
            return f"{value}, {self.one('0.5', '0.1, 0.9', '0, 0.25, 1', '0.99')}"
        if name in ("top", "bottom"):
            return f"{value}, k={self.one(1, 2, 3, 5)}"
        if name == "hist":
            values, _ = observed(self.subject, value, self.where.text)
            low, high = (float(values[0]), float(values[-1])) if len(values) else (0.0, 1.0)
            # Rounded, so that the ends are inside: some values fall below and above.
            low, high = round(low * 0.7, 1), round(high * 0.7, 1)
            return f"{value}, bins={self.one(2, 3, 8)}, lo={low}, hi={max(high, low + 0.5)}"
        return value

    # --- captures --------------------------------------------------------------------------------

    def pool(self) -> list[str]:
        choices = ["layer"] if self.where.layered else []
        if "key" not in self.where.dims:
            choices.append("feature")
            choices += ["head"] if "head" in self.where.dims else []
        if not choices or not self.chance(0.2):
            return []
        return sorted(set(self.draw(st.lists(st.sampled_from(choices), min_size=1, max_size=3))))

    def keys(self) -> list[str]:
        if not self.chance(0.4):
            return []
        keys = ["position", "content_position", "sample", "token", "prev", "next", "row.label"]
        keys += ["row.weight", "row.flag", "chunk"]
        strategy = st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True)
        return list(self.draw(strategy))

    def capture(self, name: str) -> str:
        """A whole capture."""
        pool, keys = self.pool(), self.keys()
        number = self.draw(st.integers(1, 3))
        statistics = [self.statistic(i, pool) for i in range(number)]
        if any(map(self._keeps_key, statistics)):
            # Their groups are held in memory, with a key's number beside each.
            keys = [key for key in keys if key != "sample"]
        text = ", ".join(statistics)
        text = f"capture {text}\n  from {self.where.text}"
        if self.chance(0.6):
            text += f"\n  where {self.predicate()}"
        if keys:
            text += f"\n  by {', '.join(keys)}"
        if pool:
            text += f"\n  pool {', '.join(pool)}"
        return f"{text}\n  as {name}"
