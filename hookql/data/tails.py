"""What a chat template writes behind every chat: a tail that is no message's own end.

Some templates close the whole chat with a special token (`eos`) where no answer is asked for
(Phi-3). The text of a chat is then no beginning of the text of a longer one, unless without that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from hookql.data.messages import Message
from hookql.data.skeleton import ASSISTANT, end_of, header_of, marked, slots_of
from hookql.data.templates import Refused, Render

_TURNS = ("user", ASSISTANT, "user", ASSISTANT)


def tail_of(render: Render, specials: Sequence[str]) -> str:
    """What stands behind all messages in every chat, special tokens and white space; else "".

    It is the least that, taken away, leaves each chat a beginning of the next longer one, so that
    ends which every message has stay with the messages. Where the first message of a role does not
    begin like a later one then, the template writes words between messages that it leaves out
    behind the last; whose these are, nobody knows, and there is no tail.
    """
    turns = marked([{"role": role, "content": ""} for role in _TURNS])
    chats: list[tuple[list[Message], str]] = []
    for count in range(1, len(turns) + 1):
        try:
            chats.append((turns[:count], render(turns[:count], False)))
        except Refused:
            continue
    if len(chats) < 2 or _agree(render, chats):
        return ""
    for tail in _ends(chats[0][1], specials):
        if all(text.endswith(tail) for _, text in chats):
            cut = without(render, tail)
            bodies = [(chat, text[: -len(tail)]) for chat, text in chats]
            if _agree(cut, bodies):
                return tail if _alike(cut) else ""
    return ""


def without(render: Render, tail: str) -> Render:
    """The template without the tail of its chats, where no answer is asked for.

    A message that is not marked may end as the tail does: it raises `Refused` then.
    """

    def cut(messages: Sequence[Message], prompt: bool) -> str:
        text = render(messages, prompt)
        if prompt or not tail or not text.endswith(tail):
            return text
        if any(tail.strip() in str(message.get("content", "")) for message in messages):
            raise Refused("a content has the words that the template ends with")
        return text[: -len(tail)]

    return cut


def _ends(text: str, specials: Sequence[str]) -> Iterator[str]:
    """The ends of a text that are of whole special tokens and white space, the shortest first."""
    tokens = [re.escape(token) for token in sorted(specials, key=len, reverse=True) if token]
    parts = "|".join([*tokens, r"\s"])
    found = re.search(rf"(?:{parts})*\Z", text)
    start = found.start() if found else len(text)
    for place in reversed([start + m.start() for m in re.finditer(parts, text[start:])]):
        if text[place:].strip():
            yield text[place:]


def _agree(render: Render, chats: Sequence[tuple[Sequence[Message], str]]) -> bool:
    """Whether in each chat it can be told where the messages of the one before it end."""
    return all(
        end_of(render, fewer, text, slots_of(text)) is not None
        for (fewer, _), (_, text) in pairwise(chats)
    )


def _alike(render: Render) -> bool:
    """Whether first messages begin like later ones of the same role, in what can be seen."""
    seen = [found for role in ("user", ASSISTANT) if (found := header_of(render, role))]
    return bool(seen) and all(before.endswith(header) for before, header in seen)
