"""What is wrong with a text that does not parse: every error at once, each in its own words.

Walks the automaton over the text. Where a token does not fit, a *slip* (a habit from another
language, a misspelt keyword) is taken for what was meant and reading goes on right behind it;
otherwise the text is skipped up to the next clause keyword that fits in somewhere, as in
grammar-notes: past strings and comments, popping states until one takes it.
"""

from __future__ import annotations

import re

from attrs import define, field

from hookql.errors import Diagnostic, Source, Span
from hookql.language import slips, words
from hookql.language.automaton import END, Automaton, Lexeme, Stack
from hookql.language.expected import KEYWORDS, describe

NOTHING = Lexeme("", 0, 0)
MOST_ERRORS = 20
MOST_SKIPS = 1000
"""Clause keywords looked at in search of a place to go on from, in a whole query."""

DEEPEST_STACK = 500

OPENING = {"_LPAR": "_RPAR", "_LSQB": "_RSQB", "_LBRACE": "_RBRACE"}
READERS = {
    "NUMBER": words.read_number,
    "STRING": words.read_string,
    "STEP": words.read_step,
    "FIRST_STEP": words.read_step,
}
# What may be missing in front of a keyword: pretending that it stands there goes on best.
FILLERS = ("NAME", "FIRST_STEP", "STRING", "STEP", "CLASS", "WORD")

_SYNC = re.compile(
    r'"(?:[^"\\\r\n]|\\[^\r\n])*"?'
    r"|\#[^\r\n]*"
    r"|~\s*/(?:[^/\\\r\n]|\\[^\r\n])*/?"
    r"|(?P<word>(?<![\w.:@])(?:let|capture|except|from|where|by|pool|during|as|into)(?![\w.:\[])|;)"
)


def diagnose(automaton: Automaton, source: Source) -> list[Diagnostic]:
    """Every syntax error of a text that has one, in order, at least one and at most twenty."""
    walk = Walk(automaton, source)
    walk.run()
    if not walk.problems:
        walk.problem(slips.Slip("syntax", "this is no query", Span(0, 1)))
    return sorted(walk.problems, key=lambda d: d.span.start if d.span else 0)


@define
class Walk:
    """One reading of a broken text."""

    automaton: Automaton
    source: Source
    position: int = 0
    stack: Stack = field(init=False)
    opened: list[tuple[int, Lexeme]] = field(factory=list)  # stack height before it, the bracket
    last: Lexeme = NOTHING
    before_last: Stack = field(factory=list)
    skips: int = 0
    problems: list[Diagnostic] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.stack = [self.automaton.start]

    def run(self) -> None:
        """Read to the end, or until there is no going on."""
        while len(self.problems) < MOST_ERRORS:
            lexeme = self.automaton.lex(self.source.text, self.stack[-1], self.position)
            if self.take(lexeme):
                if lexeme.kind == END:
                    return
                self.check(lexeme)
            elif not self.recover(lexeme):
                return
            if len(self.stack) > DEEPEST_STACK:
                self.problem(slips.too_deep(lexeme))
                return

    def take(self, lexeme: Lexeme) -> bool:
        """Go on behind a token that fits; False, and nothing changed, where it does not."""
        before = list(self.stack)
        if not lexeme.kind or not self.automaton.feed(self.stack, lexeme.kind):
            self.stack = before
            return False
        if lexeme.kind in OPENING:
            self.opened.append((len(self.stack) - 1, lexeme))
        elif lexeme.kind in OPENING.values() and self.opened:
            self.opened.pop()
        self.last, self.before_last = lexeme, before
        self.position = lexeme.end
        return True

    def check(self, lexeme: Lexeme) -> None:
        """Report a token that fits but has no value: an unknown escape, a number too large."""
        try:
            READERS.get(lexeme.kind, str)(self.source.text[lexeme.start : lexeme.end])
        except words.Misspelt as error:
            span = Span(lexeme.start, lexeme.end)
            self.problem(slips.Slip(error.code, error.message, span, error.help))

    def problem(self, slip: slips.Slip) -> None:
        self.problems.append(
            Diagnostic(slip.code, slip.message, slip.span, self.source, slip.help, slip.notes)
        )

    def recover(self, found: Lexeme) -> bool:
        """Report the token that does not fit and find a place to go on; False at the end."""
        text, at = self.source.text, found.start
        expected = self.automaton.expected(self.stack)
        bracket = self.unclosed(found, expected)
        if bracket is not None:
            self.problem(bracket)
            return found.kind != END and self.synchronize(at)
        slip = slips.find(text, at, expected, stray=not self.opened)
        if slip is None:
            slip, expected = self.shouted(at) or (None, expected)
        if slip is None:
            self.problem(self.unexpected(found, expected))
            return found.kind != END and self.synchronize(at)
        self.problem(slip)
        self.position = slip.resume
        if slip.skip:
            return self.synchronize(slip.resume)
        if slip.meant is not None:
            self.take(Lexeme(slip.meant, slip.span.start, slip.resume))
        return True

    def shouted(self, at: int) -> tuple[slips.Slip, set[str]] | None:
        """`NOT special`: the name before the error was a keyword in upper case."""
        word = self.source.text[self.last.start : self.last.end]
        kind = f"_{word}"
        if self.last.kind not in ("NAME", "FIRST_STEP", "STEP") or kind not in KEYWORDS:
            return None
        if not self.automaton.accepts(self.before_last, kind):
            return None
        self.stack = list(self.before_last)
        span = Span(self.last.start, self.last.end)
        return slips.upper_case(word, span), set()

    def unclosed(self, found: Lexeme, expected: set[str]) -> slips.Slip | None:
        """A bracket still open at the end of the query or where the next clause begins."""
        word = re.compile(r"\w+").match(self.source.text, found.start)
        clause = word is not None and word[0] in (*words.CLAUSES, "let", "capture")
        if not self.opened or not (found.kind == END or clause):
            return None
        bracket = self.opened[-1][1]
        if OPENING[bracket.kind] not in expected:
            return None
        return slips.unclosed(self.source.text, bracket)

    def unexpected(self, found: Lexeme, expected: set[str]) -> slips.Slip:
        """The general case: what stands there, and what could."""
        behind = self.last.kind
        if expected == {"NAME"} and self.automaton.accepts(self.stack, "NAME", "_FROM"):
            behind = "_CAPTURE"  # a comma between statistics
        could = describe(expected, behind)
        if found.kind == END:
            end = self.last.end
            message = f"expected {could}, but the query ends here"
            return slips.Slip("syntax", message, Span(end, end))
        return slips.unexpected(self.source.text, found.start, could, expected)

    def synchronize(self, start: int) -> bool:
        """Skip to the next clause keyword that some state on the stack can take."""
        for found in _SYNC.finditer(self.source.text, start):
            word = found["word"]
            if word is None:
                continue
            self.skips += 1
            if self.skips > MOST_SKIPS:
                return False
            kind = "_SEMICOLON" if word == ";" else f"_{word.upper()}"
            if self.unwind(kind):
                self.position = found.start()
                return True
        return False

    def unwind(self, kind: str) -> bool:
        """Drop states until one takes the keyword, if need be behind a word that is missing."""
        for height in range(len(self.stack), 0, -1):
            stack = self.stack[:height]
            filler = next((f for f in FILLERS if self.automaton.accepts(stack, f, kind)), None)
            if filler is None and not self.automaton.accepts(stack, kind):
                continue
            if not self.automaton.accepts(stack, kind) and filler is not None:
                self.automaton.feed(stack, filler)
            self.stack = stack
            self.opened = [(h, bracket) for h, bracket in self.opened if h < height]
            return True
        return False
