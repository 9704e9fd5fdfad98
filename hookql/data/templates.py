"""A tokenizer's chat template: messages to the text that the model reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hookql.data.messages import Message
from hookql.errors import Diagnostic, UsageError

Render: TypeAlias = Callable[[Sequence[Message], bool], str]
"""Messages, and whether the header of an answer is to stand behind them, to a text."""


class Refused(Exception):
    """A template that does not take these messages, in its own words."""


def template_of(tokenizer: Any) -> Render:
    """The tokenizer's template as a function, which raises `Refused`.

    Raises:
        UsageError: where the tokenizer has none, or one that is broken; the latter also later.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(
            Diagnostic(
                "no-chat-template",
                "the model's tokenizer has no chat template, so it cannot be run on chats",
                help="take the chat version of the model, or give the text itself in a column",
            )
        )

    try:
        # One of several, where it has several by name.
        getattr(tokenizer, "get_chat_template", lambda: None)()
    except ValueError as error:
        raise _broken(error) from None

    def render(messages: Sequence[Message], prompt: bool) -> str:
        given = [dict(message) for message in messages]
        try:
            text = tokenizer.apply_chat_template(
                given, tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:  # its own refusals, and whatever its expressions raise
            if type(error).__name__ == "TemplateSyntaxError" or isinstance(error, ImportError):
                raise _broken(error) from None
            raise Refused(_first(error)) from None
        return str(text)

    return render


def _broken(error: Exception) -> UsageError:
    message = f"the tokenizer's chat template cannot be used: {_first(error)}"
    return UsageError(Diagnostic("bad-chat-template", message))


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]


def fingerprint(tokenizer: Any) -> str:
    """The sha256 of a tokenizer's template, or templates: equal templates, equal hash."""
    template = json.dumps(tokenizer.chat_template, sort_keys=True, default=str)
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


def special_ids(tokenizer: Any) -> npt.NDArray[np.int64]:
    """The ids that a tokenizer calls special: of its roles, and of tokens added as special."""
    ids = set(getattr(tokenizer, "all_special_ids", None) or ())
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    ids.update(id for id, token in added.items() if getattr(token, "special", False))
    return np.array(sorted(ids), np.int64)


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts of a tokenizer's special tokens, and of all that were added to its vocabulary."""
    texts = {str(token) for token in getattr(tokenizer, "all_special_tokens", None) or ()}
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    texts.update(str(token) for token in added.values())
    return sorted(texts)
