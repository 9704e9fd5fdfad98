"""Chats as data: the list of messages in a column, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from hookql.data.jsonl import kind
from hookql.data.limits import LONGEST, too_long
from hookql.data.samples import Sample
from hookql.errors import DataError, Diagnostic, listing
from hookql.language.names import LONGEST_ROLE

MESSAGES = "messages"
"""The column that holds the messages where none is named."""

MOST = 1000
"""More messages a chat than this are refused: the time to tell them apart grows with the square."""

Message: TypeAlias = dict[str, Any]

_HELP = 'write each message as {"role": "user", "content": "..."}'


def messages_of(sample: Sample, column: str) -> list[Message]:
    """The messages of a sample, each with a ``role`` and, mostly, a ``content``; both text.

    A message may have other keys, which the template sees too; one with such keys (tool calls)
    needs no content. A key whose value is null is left out.

    Raises:
        DataError: naming the sample, and the message that is none.
    """
    where, value = sample.describe(), sample.row[column]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        message = f"{where}: column `{column}` is {kind(value)}, not a list of messages"
        raise _bad("not-a-chat", message)
    if not value:
        raise DataError(Diagnostic("not-a-chat", f"{where}: column `{column}` holds no messages"))
    if len(value) > MOST:
        message = f"{where}: a chat of {len(value):,} messages is more than the limit of {MOST:,}"
        raise DataError(Diagnostic("too-long", message))
    messages = [_message(item, f"{where}: message {k}") for k, item in enumerate(value)]
    if sum(len(message.get("content", "")) for message in messages) > LONGEST:
        raise too_long(where)
    return messages


def _message(item: object, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise _bad("bad-message", f"{where} is {kind(item)}, not an object")
    message = {str(key): value for key, value in item.items() if value is not None}
    missing = [key for key in ("role", "content") if key not in message]
    if "role" in missing or (missing and len(message) == 1):
        if missing[0] in item:
            raise _bad("bad-message", f"{where}: its {missing[0]} is null")
        keys = listing(tuple(map(str, item))) or "none"
        raise _bad("bad-message", f"{where} has no `{missing[0]}`", f"keys there: {keys}")
    role, content = message["role"], message.get("content", "")
    if not isinstance(role, str):
        raise _bad("bad-message", f"{where}: its role is {kind(role)}, not text")
    if not 1 <= len(role) <= LONGEST_ROLE:
        said = f"has {len(role)} characters, more than {LONGEST_ROLE}" if role else "is empty"
        raise DataError(Diagnostic("bad-message", f"{where}: its role {said}"))
    if isinstance(content, list | tuple):
        raise _bad("bad-message", f"{where}: its content is a list of parts, not one text")
    if not isinstance(content, str):
        raise _bad("bad-message", f"{where}: its content is {kind(content)}, not text")
    return message


def _bad(code: str, message: str, *notes: str) -> DataError:
    return DataError(Diagnostic(code, message, help=_HELP, notes=notes))
