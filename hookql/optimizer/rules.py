"""The rules of the optimiser by name, and which of them a run uses."""

from __future__ import annotations

from collections.abc import Mapping

from hookql.errors import Diagnostic, UsageError, did_you_mean

RULES: Mapping[str, str] = {
    "depth": "leave the forward pass behind the last module that is needed",
    "weights": "load only the weights that the shortened pass needs",
    "rows": "leave out samples, and the ends of samples, of which no row is wanted",
    "budget": "find the batch size by measuring on this machine",
    "duplicates": "run samples that are identical once, and count each",
    "prefixes": "run what samples begin with in common once",
    "sharing": "run the queries of a config over the same model and data in one pass",
}
"""What each rule does; its code is the file of its name."""

ALL = frozenset(RULES)


def chosen(optimize: str | bool | None) -> frozenset[str]:
    """The rules that an `optimize` option leaves on, from "all", "none" or "+rule,-rule".

    None and True are all, False is none. A list of changes starts from all, unless it begins with
    "none". Raises UsageError `unknown-rule` or `bad-option`.
    """
    if optimize is None or isinstance(optimize, bool):
        return frozenset() if optimize is False else ALL
    if not isinstance(optimize, str):
        message = f"`optimize` is True, False or text, not {optimize!r}"
        raise UsageError(Diagnostic("bad-option", message, help='write "+rule,-rule"'))
    on = set(ALL)
    for number, word in enumerate(part.strip() for part in optimize.split(",")):
        if number == 0 and word in ("all", "none"):
            on = set(ALL) if word == "all" else set()
            continue
        sign, name = word[:1], word[1:]
        if sign not in ("+", "-") or name not in RULES:
            raise _unknown(word)
        (on.add if sign == "+" else on.discard)(name)
    return frozenset(on)


def _unknown(word: str) -> UsageError:
    bare = word.lstrip("+-")
    notes = (f"rules: {', '.join(RULES)}",)
    if bare in RULES:
        message = f"`{word}` does not say whether the rule is to be used"
        help: str | None = f"write `+{bare}` or `-{bare}`"
    else:
        message = f"there is no rule `{bare}`" if bare else "a rule is missing in `optimize`"
        help = did_you_mean(bare, [*RULES])
    return UsageError(Diagnostic("unknown-rule", message, help=help, notes=notes))
