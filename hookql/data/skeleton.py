"""What a chat template writes around messages, and to whom each part of it belongs.

Each content is replaced by a mark of its own, so that nothing in a content can be taken for the
template's words. Message k begins where the text of the first k messages alone ends: by this, and
by nothing else but the headers that the template gives later messages of the same role, its words
are told apart. Words that this leaves open (of messages that a template puts into one another)
belong to nobody, "".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from attrs import frozen

from hookql.data.messages import Message
from hookql.data.templates import Refused, Render

NOBODY = ""
SYSTEM = "system"
ASSISTANT = "assistant"
_MARK = re.compile(r"hqlZ7Q(\d+)W9x")


@frozen
class Slot:
    """Where a content of message ``k`` stands in the marked text."""

    start: int
    stop: int
    k: int


@frozen
class Skeleton:
    """The marked text, who says each of its characters, and where contents stand in it."""

    text: str
    said: tuple[str, ...]
    slots: tuple[Slot, ...]


def marked(messages: Sequence[Message], kept: frozenset[int] = frozenset()) -> list[Message]:
    """The messages with marks for contents, those in ``kept`` as they are."""
    return [
        {**m, "content": f"hqlZ7Q{k}W9x"} if "content" in m and k not in kept else m
        for k, m in enumerate(messages)
    ]


def skeleton(render: Render, messages: Sequence[Message], bos: str | None) -> Skeleton | None:
    """The skeleton of marked messages; None where a content that has no mark is not told apart.

    ``bos`` is the tokenizer's first token: where it stands before all headers, nobody says it.
    ``render`` leaves out the tail that the template writes behind every chat. Raises `Refused`
    where the template does not take marks for contents.
    """
    text = render(messages, False)
    roles = [str(message["role"]) for message in messages]
    slots = slots_of(text)
    lead = _lead(render, text, bos)
    found = [*_starts(render, messages, text, slots), len(text)]
    starts = [None if start is None else max(start, lead) for start in found]
    said = [NOBODY] * len(text)
    if starts[0] is not None:
        # What a template puts before a user's own header is its system prompt.
        said[lead : starts[0]] = [SYSTEM] * (starts[0] - lead)
    known = [k for k, start in enumerate(starts) if start is not None]
    clear: set[int] = set()
    for first, behind in pairwise(known if starts[0] is not None else [-1, *known]):
        clear |= _fill(said, slots, roles, (first, behind), starts)
    for slot in slots:
        said[slot.start : slot.stop] = [roles[slot.k]] * (slot.stop - slot.start)
    unmarked = {k for k, m in enumerate(messages) if not _MARK.fullmatch(m.get("content", ""))}
    if unmarked - clear:
        return None
    return Skeleton(text, tuple(said), slots)


def ended(found: Skeleton, text: str, tail: str) -> Skeleton | None:
    """The skeleton with what the template writes behind all messages; None where that is unclear.

    ``text`` is the whole rendering of the same messages. Its tail is nobody's, the rest the header
    of an answer.
    """
    if not text.startswith(found.text):
        return None
    rest = text[len(found.text) :]
    said = [ASSISTANT] * len(rest)
    # Behind the messages, then the header; or behind both.
    if tail and rest.startswith(tail):
        said[: len(tail)] = [NOBODY] * len(tail)
    elif tail and rest.endswith(tail):
        said[-len(tail) :] = [NOBODY] * len(tail)
    return Skeleton(text, (*found.said, *said), found.slots)


def slots_of(text: str) -> tuple[Slot, ...]:
    """Where marked contents stand in a text."""
    return tuple(Slot(m.start(), m.end(), int(m[1])) for m in _MARK.finditer(text))


def _fill(
    said: list[str],
    slots: Sequence[Slot],
    roles: Sequence[str],
    stretch: tuple[int, int],
    starts: Sequence[int | None],
) -> set[int]:
    """Say whose a stretch of messages is, ``first`` up to ``behind``; return those that are clear.

    The stretch of one message is its own. Where it holds several, or contents of others, the words
    before the first content and behind the last are told, if these are the first's and the last's.
    """
    first, behind = stretch
    start, stop = starts[first] if first >= 0 else 0, starts[behind]
    assert start is not None
    assert stop is not None
    inside = [slot for slot in slots if start <= slot.start < stop]
    whole = inside == [slot for slot in slots if slot.k == first]
    if first >= 0 and behind == first + 1 and whole:
        said[start:stop] = [roles[first]] * (stop - start)
        return {first}
    if inside and inside[0].k == first:
        said[start : inside[0].start] = [roles[first]] * (inside[0].start - start)
    if inside and inside[-1].k == behind - 1:
        said[inside[-1].stop : stop] = [roles[behind - 1]] * (stop - inside[-1].stop)
    return set()


def _starts(
    render: Render, messages: Sequence[Message], text: str, slots: Sequence[Slot]
) -> list[int | None]:
    """Where each message begins, None where that cannot be told."""
    headers: dict[str, str | None] = {}

    def by_header(k: int) -> int | None:
        """By the header that the template gives a later message of that role."""
        role = str(messages[k]["role"])
        if role not in headers:
            seen = header_of(render, role)
            headers[role] = seen and seen[1]
        at = next((slot.start for slot in slots if slot.k == k), None)
        header = headers[role]
        if at is None or not header or not text[:at].endswith(header):
            return None
        behind = max((slot.stop for slot in slots if slot.stop <= at), default=0)
        return at - len(header) if at - len(header) >= behind else None

    first = 0 if messages[0]["role"] == SYSTEM else by_header(0)
    if first is None and slots and slots[0].k == 0 and slots[0].start == 0:
        first = 0  # a template without headers
    starts = [first]
    for k in range(1, len(messages)):
        found = end_of(render, messages[:k], text, slots)
        starts.append(by_header(k) if found is None else max(found, first or 0))
    told = [start for start in starts if start is not None]
    return starts if told == sorted(told) else [None] * len(starts)


def end_of(
    render: Render, messages: Sequence[Message], text: str, slots: Sequence[Slot]
) -> int | None:
    """Where these first messages end in the text of all."""
    try:
        alone = render(messages, False)
    except Refused:
        return None
    if text.startswith(alone):
        return len(alone)
    # Something earlier is written in another way: what is behind the last content may be equal.
    last = slots_of(alone)[-1:]
    here = [slot for slot in slots if slot.k == len(messages) - 1]
    if not last or not here or last[0].k != len(messages) - 1:
        return None
    tail = alone[last[0].stop :]
    return here[-1].stop + len(tail) if text.startswith(tail, here[-1].stop) else None


def _turns(role: str) -> list[Message]:
    """A message of a role between whose first and last there is another's."""
    other = "user" if role == ASSISTANT else ASSISTANT
    return marked([{"role": name, "content": ""} for name in (role, other, role)])


def header_of(render: Render, role: str) -> tuple[str, str] | None:
    """What the template writes before a first message of this role, and before a later one.

    The latter is behind the message before it; the former may begin with other words.
    """
    turns = _turns(role)
    try:
        text = render(turns, False)
    except Refused:
        return None
    slots = slots_of(text)
    if [slot.k for slot in slots] != [0, 1, 2]:
        return None
    start = end_of(render, turns[:2], text, slots)
    if start is None or start > slots[2].start:
        return None
    return text[: slots[0].start], text[start : slots[2].start]


def _lead(render: Render, text: str, bos: str | None) -> int:
    """How long the first token is, where it stands before all messages and in no header."""
    if not bos or not text.startswith(bos):
        return 0
    try:
        several = render(_turns("user"), False)
    except Refused:
        several = text
    return len(bos) if several.startswith(bos) and several.count(bos) == 1 else 0
