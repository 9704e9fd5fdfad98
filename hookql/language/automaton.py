"""The grammar's automaton without lark: which token stands where, and what may follow.

`syntax_errors` walks a broken query with it, and the formatter finds comments between its tokens.
The stack holds states only: in a query that has errors nothing is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import field, frozen

END = "$END"
Stack = list[int]


@frozen
class Lexeme:
    """One token: the terminal's name and its half-open range of characters."""

    kind: str
    start: int
    end: int


@frozen
class Reduce:
    """Replace the topmost ``size`` states by the one that follows ``rule``."""

    rule: str
    size: int


@frozen(eq=False)
class Automaton:
    """LALR tables: for each state, what each terminal or rule does (a number: go there)."""

    actions: Mapping[int, Mapping[str, int | Reduce]]
    start: int
    end: int
    terminals: Mapping[str, str]  # name -> regex, the ones to try first standing first
    ignored: frozenset[str]
    _scanners: dict[int, re.Pattern[str]] = field(init=False, factory=dict)

    def feed(self, stack: Stack, kind: str) -> bool:
        """Take a token in; False, with the stack spoilt, where it cannot stand."""
        while True:
            action = self.actions[stack[-1]].get(kind)
            if action is None:
                return False
            if isinstance(action, int):
                stack.append(action)
                return True
            if action.size:
                del stack[-action.size :]
            follow = self.actions[stack[-1]][action.rule]
            assert isinstance(follow, int)
            stack.append(follow)
            if kind == END and follow == self.end:
                return True

    def accepts(self, stack: Stack, *kinds: str) -> bool:
        """Whether these tokens may follow, one after the other; the stack stays as it is."""
        if kinds[0] not in self.actions[stack[-1]]:
            return False
        copy = list(stack)
        return all(self.feed(copy, kind) for kind in kinds)

    def expected(self, stack: Stack) -> set[str]:
        """Every terminal that may come next."""
        kinds = self.actions[stack[-1]]
        return {k for k in kinds if (k in self.terminals or k == END) and self.accepts(stack, k)}

    def lex(self, text: str, state: int, position: int) -> Lexeme:
        """The next token that the state knows; its kind is empty where there is none."""
        scanner = self._scanners.get(state)
        if scanner is None:
            known = self.ignored | set(self.actions[state])
            parts = (f"(?P<{k}>{regex})" for k, regex in self.terminals.items() if k in known)
            scanner = self._scanners[state] = re.compile("|".join(parts))
        while position < len(text):
            found = scanner.match(text, position)
            if found is None:
                return Lexeme("", position, position)
            kind = found.lastgroup or ""
            if kind not in self.ignored:
                return Lexeme(kind, position, found.end())
            position = found.end()
        return Lexeme(END, position, position)

    def tokens(self, text: str) -> Iterator[Lexeme]:
        """The tokens of a text that is known to be right."""
        stack, position = [self.start], 0
        while True:
            lexeme = self.lex(text, stack[-1], position)
            if lexeme.kind == END:
                return
            accepted = self.feed(stack, lexeme.kind)
            assert accepted, lexeme
            yield lexeme
            position = lexeme.end
