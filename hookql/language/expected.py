"""What could have stood there: the grammar's terminals as words a reader knows."""

from __future__ import annotations

from hookql.language.automaton import END
from hookql.language.words import CLAUSES, RESERVED

KEYWORDS = {f"_{word.upper()}": word for word in RESERVED}
"""The terminal of each keyword, and the word."""

_SIGNS = {
    "_ASSIGN": "`=`",
    "_LPAR": "`(`",
    "_RPAR": "`)`",
    "_LSQB": "`[`",
    "_RSQB": "`]`",
    "_LBRACE": "`{`",
    "_RBRACE": "`}`",
    "_COMMA": "`,`",
    "_DOT": "`.`",
    "_PORT": "a port",
    "COLON": "`:`",
    "MINUS": "`-`",
    "STAR": "`*`",
    "_TILDE": "`~`",
    "NUMBER": "a number",
    "STRING": "a string",
    "REGEX": "a regex",
    "NAME": "a name",
    "WORD": "a name",
    "STEP": "a module's name",
    "CLASS": "a class",
    END: "the end",
}

# Sets that mean one thing to a reader; the first to hold wins, its terminals are then spoken for.
# (must be there, belong to it as well, words)
_GROUPS: tuple[tuple[set[str], set[str], str], ...] = (
    ({"FIRST_STEP"}, {"STRING", "CANONICAL"}, "a module path"),
    ({"STEP"}, {"STRING"}, "a module's name"),
    ({"NUMBER", "NAME", "_NOT"}, {"STRING", "_LPAR", "MINUS", "_WITHIN"}, "an expression"),
    ({"NUMBER", "NAME"}, {"STRING", "_LPAR", "MINUS"}, "a value"),
    ({"NUMBER", "MINUS"}, set(), "a whole number"),
    ({"STRING", "REGEX"}, set(), "a string or a regex"),
    (
        {"PLUS"},
        {"MINUS", "STAR", "SLASH", "POWER", "COMPARE", "_TILDE", "_IN", "_NOT", "_AND", "_OR"}
        | {"_LSQB", "_DOT"},
        "an operator",
    ),
    ({"_AND", "_OR"}, set(), "`and`, `or`"),
    ({"_WHERE", "_INTO"}, {f"_{word.upper()}" for word in CLAUSES}, "another clause"),
    ({"_CAPTURE", "_LET"}, {"_SEMICOLON", END}, "a new statement"),
)


# What a name means behind these keywords.
_NAMED = {"_CAPTURE": "a statistic", "_BY": "a key", "_POOL": "a dimension", "_DURING": "a phase"}


def describe(kinds: set[str], behind: str = "") -> str:
    """``a name, `(` or another clause`` for a set of terminals behind another one."""
    if kinds == {"NAME"} and behind in _NAMED:
        return _NAMED[behind]
    left, words = set(kinds), []
    for needed, also, text in _GROUPS:
        if needed <= left:
            left -= needed | also
            words.append(text)
    signs = [text for kind, text in _SIGNS.items() if kind in left]
    keywords = sorted(f"`{word}`" for kind, word in KEYWORDS.items() if kind in left)
    # What is closest comes first: the end of the statement can always wait.
    late = [word for word in words if word in ("another clause", "a new statement")]
    early = [word for word in words if word not in late]
    every = list(dict.fromkeys(early + signs + keywords + late))
    if every == ["a new statement"]:
        return "`capture` or `let`"
    return " or ".join([", ".join(every[:-1]), every[-1]]) if len(every) > 1 else "".join(every)
