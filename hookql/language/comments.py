"""The comments of a text, which the syntax tree does not have, and where they belong.

Each comment belongs to a line of the canonical text: a statement's first line or one of its
clauses. At the end of such a line it stays there, and goes along when clauses change places. On a
line of its own it stays before the clause that follows. What stands in the middle of a clause that
spans lines moves before it. An indented comment right below a statement stays below it.
"""

from __future__ import annotations

import re

from attrs import define, field

from hookql.language.automaton import Lexeme

_PIECE = re.compile(r"#[^\r\n]*|\r\n|\r|\n")
_STATEMENTS = ("_LET", "_CAPTURE")
_CLAUSES = ("_FROM", "_WHERE", "_BY", "_POOL", "_DURING", "_AS", "_INTO")


@define
class Group:
    """A statement's comments: by the keyword of the line they belong to, and those below it."""

    indent: int = 0
    before: dict[str, list[str]] = field(factory=dict)  # "" is a blank line
    behind: dict[str, str] = field(factory=dict)
    below: list[str] = field(factory=list)
    apart: bool = False  # a blank line sets its first comment off from what stands above


@define
class Comment:
    """One comment as it stood."""

    text: str
    column: int
    alone: bool  # on a line of its own
    blank: bool  # a blank line stands above it


def attach(text: str, lexemes: list[Lexeme]) -> tuple[list[Group], list[str]]:
    """The comments of each statement, and those at the very end."""
    groups: list[Group] = []
    keyword, end, in_from = "", 0, False
    for lexeme in lexemes:
        if lexeme.kind == "_SEMICOLON":
            continue
        gap = Gap(text, end, lexeme.start)
        comments, end = gap.comments, lexeme.end
        if lexeme.kind in _STATEMENTS:
            waiting = _close(groups, keyword, comments)
            indent = gap.indent if gap.indent >= 0 else groups[-1].indent if groups else 0
            keyword, in_from = lexeme.kind[1:].lower(), False
            groups.append(Group(indent, apart=bool(waiting) and waiting[0].blank))
            blank = bool(waiting) and gap.blank
            groups[-1].before[keyword] = _spaced(waiting) + [""] * blank
            continue
        # Before `from`, an `as` names a statistic and begins no line.
        in_from = in_from or lexeme.kind == "_FROM"
        begins = in_from and lexeme.kind in _CLAUSES
        if begins and comments and not comments[0].alone:
            groups[-1].behind[keyword] = comments.pop(0).text
        if begins:
            keyword = lexeme.kind[1:].lower()
        groups[-1].before.setdefault(keyword, []).extend(c.text for c in comments)
    return groups, _spaced(_close(groups, keyword, Gap(text, end, len(text)).comments))


def _close(groups: list[Group], keyword: str, comments: list[Comment]) -> list[Comment]:
    """Give the statement that ends what is its own; the other comments wait for the next."""
    if not groups:
        return comments
    group = groups[-1]
    if comments and not comments[0].alone:
        group.behind[keyword] = comments.pop(0).text
    while comments and comments[0].column > group.indent and not comments[0].blank:
        group.below.append(comments.pop(0).text)
    return comments


class Gap:
    """What stands between two tokens: comments, space and `;`.

    `indent` is how far in the second token stands on its line, -1 where the first is on it too;
    `blank` says whether an empty line stands right above the second.
    """

    def __init__(self, text: str, start: int, end: int) -> None:
        self.comments: list[Comment] = []
        line_start = 0 if start == 0 else -1
        self.blank = False
        for match in _PIECE.finditer(text, start, end):
            if match[0][0] != "#":
                self.blank = line_start >= 0 and not text[line_start : match.start()].strip()
                line_start = match.end()
                continue
            alone = line_start >= 0
            column = match.start() - line_start if alone else 0
            self.comments.append(Comment(match[0].rstrip(), column, alone, alone and self.blank))
            # The line that the comment ends is not blank, whatever stands around it.
            self.blank, line_start = False, -1
        self.indent = end - line_start if line_start >= 0 else -1


def _spaced(comments: list[Comment]) -> list[str]:
    """Their texts, with the blank lines between them."""
    lines: list[str] = []
    for comment in comments:
        lines += [""] * (comment.blank and bool(lines)) + [comment.text]
    return lines
