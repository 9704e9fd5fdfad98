"""Who says which characters of a chat's text, and which of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import evolve, frozen

from hookql.data.limits import LONGEST, too_long
from hookql.data.messages import Message, messages_of
from hookql.data.samples import Said, Sample
from hookql.data.skeleton import NOBODY, Skeleton, ended, marked, skeleton
from hookql.data.tails import tail_of, without
from hookql.data.templates import Refused, fingerprint, special_tokens, template_of
from hookql.errors import DataError, Diagnostic
from hookql.language.names import LONGEST_ROLE

ROLE = np.dtype(f"<U{LONGEST_ROLE}")
"""The dtype of roles and phases: one, so that arrays of several batches go together."""

# Chats of equal roles have equal skeletons: so many are kept.
_SKELETONS = 256


class Chats:
    """Renders the messages in a column of samples, and finds out who says what.

    With ``prompt`` the header of an answer stands behind the messages. ``template`` is a hash of
    the template.
    """

    def __init__(self, tokenizer: Any, column: str) -> None:
        self.column = column
        self.prompt = False
        self._render = template_of(tokenizer)
        self.template = fingerprint(tokenizer)
        self._bos: str | None = getattr(tokenizer, "bos_token", None)
        self._specials = special_tokens(tokenizer)
        self._tail: str | None = None
        self._known: dict[str, Skeleton | None] = {}

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its rendered text and who says it; an empty record is an empty text.

        Raises:
            DataError: naming a sample that is no chat, that the template refuses, or of which it
                cannot be told who says what.
        """
        if not sample.row:
            return evolve(sample, said=())
        messages = messages_of(sample, self.column)
        try:
            text = self._render(messages, self.prompt)
        except Refused as error:
            message = f"{sample.describe()}: the chat template refuses these messages: {error}"
            raise DataError(Diagnostic("template-refuses", message)) from None
        if len(text) > LONGEST:
            raise too_long(sample.describe())
        said = self._said(messages, text)
        if said is None:
            message = f"{sample.describe()}: it cannot be told who says what in this chat"
            note = (
                "the model's chat template changes the messages, or their order, by what they say"
            )
            raise DataError(Diagnostic("unclear-roles", message, notes=(note,)))
        return evolve(sample, text=text, said=said)

    def _said(self, messages: Sequence[Message], text: str) -> Said | None:
        """Who says which part of the text: by ever slower ways, none of which guesses."""
        blank = frozenset(k for k, m in enumerate(messages) if not m.get("content", "x").strip())
        for kept in dict.fromkeys((frozenset[int](), blank)):
            found = self._skeleton(marked(messages, kept))
            said = None if found is None else _filled(found, messages, text)
            if said is not None:
                return said
        # The template looks into what the model says, as into its thoughts: these stay as they are.
        answers = frozenset(
            k for k, m in enumerate(messages) if m["role"] not in ("user", "system")
        )
        found = self._made(marked(messages, blank | answers))
        return None if found is None else _filled(found, messages, text)

    def _skeleton(self, messages: Sequence[Message]) -> Skeleton | None:
        key = repr((self.prompt, messages))
        if key not in self._known:
            if len(self._known) >= _SKELETONS:
                self._known.clear()
            self._known[key] = self._made(messages)
        return self._known[key]

    def _made(self, messages: Sequence[Message]) -> Skeleton | None:
        if self._tail is None:
            self._tail = tail_of(self._render, self._specials)
        try:
            found = skeleton(without(self._render, self._tail), messages, self._bos)
            whole = self._render(messages, self.prompt)
        except Refused:
            return None
        return None if found is None else ended(found, whole, self._tail)


@frozen
class _Way:
    """One way to read a text up to some place: the lengths of the contents, the latest first."""

    length: int
    before: _Way | None


def _filled(found: Skeleton, messages: Sequence[Mapping[str, Any]], text: str) -> Said | None:
    """Who says what in a text that is the skeleton with contents for marks, else None.

    Templates may strip the contents; where the text can be read in two ways, nobody knows.
    """
    ways: dict[int, _Way | None] = {0: None}
    at = 0
    for slot in found.slots:
        words = found.text[at : slot.start]
        at = slot.stop
        content = str(messages[slot.k]["content"])
        forms = {content, content.strip(), content.lstrip(), content.rstrip()}
        reached: dict[int, _Way | None] = {}
        for place, way in ways.items():
            if not text.startswith(words, place):
                continue
            for form in forms:
                if text.startswith(form, place + len(words)):
                    stop = place + len(words) + len(form)
                    if stop in reached:
                        return None
                    reached[stop] = _Way(len(form), way)
        ways = reached
    ends = [place for place in ways if text[place:] == found.text[at:]]
    if len(ends) != 1:
        return None
    lengths: list[int] = []
    way = ways[ends[0]]
    while way is not None:
        lengths.append(way.length)
        way = way.before
    return _runs(found, lengths[::-1])


def _runs(found: Skeleton, lengths: Sequence[int]) -> Said:
    """Pieces of the text, each with its end and who says it."""
    runs: list[tuple[int, str]] = []
    end = at = 0
    slots = [
        (slot.start, slot.stop, length) for slot, length in zip(found.slots, lengths, strict=True)
    ]
    for start, stop, length in [*slots, (len(found.text), len(found.text), 0)]:
        for role in found.said[at:start]:
            end += 1
            _add(runs, end, role)
        at, end = stop, end + length
        if length:
            _add(runs, end, found.said[start])
    return tuple(runs)


def _add(runs: list[tuple[int, str]], end: int, role: str) -> None:
    if runs and runs[-1][1] == role:
        runs.pop()
    runs.append((end, role))


def roles_of(sample: Sample, spans: npt.NDArray[np.int32]) -> npt.NDArray[np.str_]:
    """Who says each token, text `ROLE` (L,), by the characters (L, 2) that it is from.

    A token that two have a part in is its who says all of it but white space, else nobody's.
    """
    runs = sample.said or ()
    stops = np.array([end for end, _ in runs], np.int64)
    names = np.array([role for _, role in runs] or [NOBODY], ROLE)
    last = max(len(runs) - 1, 0)
    starts = np.minimum(np.searchsorted(stops, spans[:, 0], side="right"), last)
    before = np.maximum(spans[:, 1] - 1, 0)
    ends = np.minimum(np.searchsorted(stops, before, side="right"), last)
    roles = names[starts]
    for token in np.flatnonzero(starts != ends):
        start, stop = (int(place) for place in spans[token])
        places = [p for p in range(start, stop) if not sample.text[p].isspace()]
        speakers = {str(names[np.searchsorted(stops, p, side="right")]) for p in places}
        roles[token] = speakers.pop() if len(speakers) == 1 else NOBODY
    return roles
