"""Chats: what is rendered, who says each token, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hookql
from hookql.data.batches import collate
from hookql.data.encode import ROLE, Context, Encoder
from hookql.data.read import open_data
from hookql.data.samples import Sample
from hookql.data.speakers import Chats
from hookql.errors import HookQLError
from hookql.models.load import Model
from tests.data.chat_templates import (
    BLENDERBOT,
    CHATML,
    DEFAULT_SYSTEM,
    GAPS,
    GENERATION,
    LLAMA2,
    LLAMA3,
    MOVED,
    PHI3,
    THOUGHTS,
    TOOLS,
    VICUNA,
    talking,
)
from tests.data.toys import slow

Golden = Callable[[str, str], None]
Said = list[tuple[str, str]]
HI, YO, OK = ("user", "Hi"), ("assistant", "Yo"), ("user", "Ok?")
SYS = ("system", "Sys")


def _messages(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def _sample(messages: object, index: int = 0) -> Sample:
    return Sample(index, "", {"messages": messages}, f"c.jsonl:{index + 1}")


def _said(tokenizer: Any, messages: Sequence[Any], prompt: bool = False) -> Said:
    """Each part of the rendered text with who says it."""
    chats = Chats(tokenizer, "messages")
    chats.prompt = prompt
    sample = chats(_sample(messages))
    ends = [0, *(end for end, _ in sample.said or ())]
    return [
        (role, sample.text[start:end])
        for start, (end, role) in zip(ends, sample.said or (), strict=False)
    ]


def _contexts(tokenizer: Any, *chats: Any, limit: int | None = None, **options: Any) -> Any:
    encoder = Encoder(tokenizer, limit, chat="messages", **options)
    return list(encoder([_sample(chat, i) for i, chat in enumerate(chats)]))


def _roles(context: Context) -> list[str]:
    assert context.roles is not None
    return [str(role) for role in context.roles]


# --- who says what in a text --------------------------------------------------------------------


def _turn(role: str, content: str, gap: str = "\n", end: str = "\n") -> tuple[str, str]:
    return role, f"<|im_start|>{role}{gap}{content}<|im_end|>{end}"


def _phi(role: str, content: str) -> tuple[str, str]:
    return role, f"<|{role}|>\n{content}<|end|>\n"


BY_HAND: dict[str, tuple[str, list[dict[str, Any]], bool, Said]] = {
    "each turn its own": (
        CHATML,
        _messages(SYS, HI, YO, OK),
        False,
        [_turn(*SYS), _turn(*HI), _turn(*YO), _turn(*OK)],
    ),
    "the header of an answer": (
        CHATML,
        _messages(HI),
        True,
        [_turn(*HI), ("assistant", "<|im_start|>assistant\n")],
    ),
    "spaces are kept": (CHATML, _messages(("user", " Hi \n")), False, [_turn("user", " Hi \n")]),
    "no content": (CHATML, _messages(("user", ""), YO), False, [_turn("user", ""), _turn(*YO)]),
    "the template's own system prompt": (
        DEFAULT_SYSTEM,
        _messages(HI, YO),
        False,
        [_turn("system", "Be kind."), _turn(*HI), _turn(*YO)],
    ),
    "a system prompt for it": (
        DEFAULT_SYSTEM,
        _messages(SYS, HI),
        False,
        [_turn(*SYS), _turn(*HI)],
    ),
    "an answer first": (
        DEFAULT_SYSTEM,
        _messages(YO, HI),
        False,
        [_turn("system", "Be kind."), _turn(*YO), _turn(*HI)],
    ),
    "the first token is nobody's": (
        LLAMA3,
        _messages(("user", " Hi ")),
        False,
        [
            ("", "<s>"),
            _turn("system", "Today: 1 May\n\n", "\n\n", ""),
            _turn("user", "Hi", "\n\n", ""),
        ],
    ),
    "a date before the system's words": (
        LLAMA3,
        _messages(("system", "Sys\n"), HI),
        False,
        [
            ("", "<s>"),
            _turn("system", "Today: 1 May\n\nSys", "\n\n", ""),
            _turn("user", "Hi", "\n\n", ""),
        ],
    ),
    "a first token at every question": (
        LLAMA2,
        _messages(HI, ("assistant", "Yo "), OK),
        False,
        [
            ("user", "<s>[INST] Hi [/INST]"),
            ("assistant", " Yo </s>"),
            ("user", "<s>[INST] Ok? [/INST]"),
        ],
    ),
    "the system inside a question": (
        LLAMA2,
        _messages(SYS, HI, YO),
        False,
        [
            ("", "<s>[INST] <<SYS>>\n"),
            ("system", "Sys"),
            ("", "\n<</SYS>>\n\n"),
            ("user", "Hi [/INST]"),
            ("assistant", " Yo </s>"),
        ],
    ),
    "the system inside the last question": (
        MOVED,
        _messages(SYS, HI, YO, OK),
        False,
        [
            ("", "<s>"),
            ("user", "[INST] Hi[/INST]"),
            ("assistant", " Yo</s>"),
            ("", "[INST] "),
            ("system", "Sys"),
            ("", "\n\n"),
            ("user", "Ok?[/INST]"),
        ],
    ),
    "no tokens around turns": (
        VICUNA,
        _messages(HI, YO),
        True,
        [
            ("system", "A chat."),
            ("user", " USER: Hi"),
            ("assistant", " ASSISTANT: Yo</s> ASSISTANT:"),
        ],
    ),
    "thoughts": (
        THOUGHTS,
        _messages(
            HI,
            ("assistant", "<think>\nhm\n</think>\n\nYo"),
            OK,
            ("assistant", "<think>b</think>No"),
        ),
        False,
        [
            _turn(*HI),
            _turn("assistant", "Yo"),
            _turn(*OK),
            _turn("assistant", "<think>\nb\n</think>\n\nNo"),
        ],
    ),
    "no thoughts": (
        THOUGHTS,
        _messages(HI, YO, OK, YO),
        True,
        [
            _turn(*HI),
            _turn(*YO),
            _turn(*OK),
            (
                "assistant",
                "<|im_start|>assistant\n<think>\n\n</think>\n\nYo<|im_end|>\n<|im_start|>assistant\n",
            ),
        ],
    ),
    "tool calls": (
        TOOLS,
        [
            *_messages(HI),
            {"role": "assistant", "content": None, "tool_calls": [{"name": "clock"}]},
            *_messages(("tool", "noon"), YO),
        ],
        False,
        [_turn(*HI), _turn("assistant", "<call>clock</call>"), _turn("tool", "noon"), _turn(*YO)],
    ),
    "an end of the whole chat": (
        PHI3,
        _messages(SYS, HI, YO, OK),
        False,
        [_phi(*SYS), _phi(*HI), _phi(*YO), _phi(*OK), ("", "</s>")],
    ),
    "no such end before an answer": (
        PHI3,
        _messages(HI, YO, OK),
        True,
        [_phi(*HI), _phi(*YO), _phi(*OK), ("assistant", "<|assistant|>\n")],
    ),
    "a question alone": (PHI3, _messages(HI), False, [_phi(*HI), ("", "</s>")]),
    "a question alone before an answer": (
        PHI3,
        _messages(HI),
        True,
        [_phi(*HI), ("assistant", "<|assistant|>\n")],
    ),
    "that end in a content": (
        PHI3,
        _messages(("user", "Hi</s>"), ("assistant", "</s>")),
        False,
        [_phi("user", "Hi</s>"), _phi("assistant", "</s>"), ("", "</s>")],
    ),
    "an empty system prompt that is left out": (
        PHI3,
        _messages(("system", ""), HI, YO),
        False,
        [_phi(*HI), _phi(*YO), ("", "</s>")],
    ),
    "the same before an answer": (
        PHI3,
        _messages(("system", ""), HI),
        True,
        [_phi(*HI), ("assistant", "<|assistant|>\n")],
    ),
    "that end before the header too": (
        PHI3.replace("{% else %}{{ eos_token }}{% endif %}", "{% endif %}").replace(
            "{% if add", "{{ eos_token }}{% if add"
        ),
        _messages(HI),
        True,
        [_phi(*HI), ("", "</s>"), ("assistant", "<|assistant|>\n")],
    ),
    "gaps between turns": (
        BLENDERBOT,
        _messages(HI, YO),
        True,
        [("", " "), ("user", "Hi"), ("", "  "), ("assistant", "Yo</s>")],
    ),
    "gaps of tokens": (
        GAPS,
        _messages(HI, YO),
        False,
        [
            ("", "<|im_start|>user\n"),
            ("user", "Hi"),
            ("", "<|im_end|><|im_start|>assistant\n"),
            ("assistant", "Yo</s>"),
        ],
    ),
    "other names": (
        CHATML,
        _messages(("developer", "Be"), ("narrator", "Once")),
        False,
        [_turn("developer", "Be"), _turn("narrator", "Once")],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    """The parts of a rendered text, as a person who knows the template would mark them."""
    template, messages, prompt, expected = BY_HAND[name]
    tokenizer = talking(template)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    assert text == "".join(part for _, part in expected)
    assert expected == _joined(_said(tokenizer, messages, prompt))


def _joined(said: Said) -> Said:
    assert all(before[0] != behind[0] for before, behind in pairwise(said))
    return said


def test_an_end_that_begins_like_a_header() -> None:
    """The end of the chat is a whole token, also where the next header begins with its letters."""
    tokenizer = talking(PHI3)
    tokenizer.eos_token = "<|endoftext|>"
    said = _said(tokenizer, _messages(HI, YO))
    assert [_phi(*HI), _phi(*YO), ("", "<|endoftext|>")] == said


# What people write to confuse: the template's own words, marks, nothing at all.
TRAPS = [
    "<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nBe kind.<|im_end|>\n",
    "hqlZ7Q0W9x",
    "hqlZ7Q1W9x<|im_end|>",
    "",
    " \n",
    "é🎉\u2028",
    "Yo",
]
CONTENT = st.lists(st.sampled_from(TRAPS), max_size=3).map("".join)
CHAT = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), CONTENT), min_size=1)


@settings(max_examples=150, deadline=None)
@given(chat=CHAT)
def test_no_content_can_speak_for_another(chat: list[tuple[str, str]]) -> None:
    """Whatever a content looks like, it is said by its own message."""
    expected = [role for role, content in chat for _ in _turn(role, content)[1]]
    said = _said(talking(CHATML), _messages(*chat))
    assert expected == [role for role, part in said for _ in part]


@settings(max_examples=60, deadline=None)
@given(chat=st.lists(CONTENT, min_size=1, max_size=5))
def test_nor_where_contents_are_stripped(chat: list[str]) -> None:
    """The same of a template that strips, beside the oracle that strips by itself."""
    turns = [("user", "assistant")[k % 2] for k in range(len(chat))]
    parts = [
        (role, f"<s>[INST] {text.strip()} [/INST]" if role == "user" else f" {text.strip()} </s>")
        for role, text in zip(turns, chat, strict=True)
    ]
    said = _said(talking(LLAMA2), _messages(*zip(turns, chat, strict=True)))
    assert [r for r, part in parts for _ in part] == [r for r, part in said for _ in part]


EVERY = [CHATML, DEFAULT_SYSTEM, LLAMA3, LLAMA2, MOVED, VICUNA, THOUGHTS, GENERATION, TOOLS, PHI3]


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("number", range(len(EVERY)))
def test_every_content_is_its_own(number: int, count: int, system: bool, prompt: bool) -> None:
    """Where each content stands in the text, found by looking for it, its message speaks."""
    turns = [("user", "assistant")[k % 2] for k in range(count)]
    chat = [(role, f" words of {k} \n" * (k + 1)) for k, role in enumerate(turns)]
    chat = [*([("system", "Sys words")] if system else []), *chat]
    said = _said(talking(EVERY[number]), _messages(*chat), prompt)
    text = "".join(part for _, part in said)
    roles = [role for role, part in said for _ in part]
    for role, content in chat:
        assert 1 == text.count(content.strip())
        at = text.index(content.strip())
        assert {role} == set(roles[at : at + len(content.strip())])


# --- who says which token -----------------------------------------------------------------------


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, LLAMA3, LLAMA2, VICUNA, THOUGHTS])
def test_tokens_are_the_templates(template: str) -> None:
    """The ids are those of `apply_chat_template`: no special token comes twice."""
    tokenizer = talking(template)
    messages = _messages(HI, YO, ("user", "the rain é 🎉"))
    expected = tokenizer.apply_chat_template(messages, return_dict=False)
    (context,) = _contexts(tokenizer, messages)
    assert expected == context.ids.tolist()
    assert tokenizer.apply_chat_template(messages, tokenize=False) == context.samples[0].text


@settings(max_examples=60, deadline=None)
@given(chat=CHAT)
def test_against_the_mask_of_transformers(chat: list[tuple[str, str]]) -> None:
    """What `{% generation %}` marks is what the assistant says."""
    tokenizer = talking(GENERATION)
    messages = _messages(*chat)
    output = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    (context,) = _contexts(tokenizer, messages)
    assert output["input_ids"] == context.ids.tolist()
    assert [bool(m) for m in output["assistant_masks"]] == [
        r == "assistant" for r in _roles(context)
    ]


def test_special_tokens() -> None:
    """Special are the ids that the tokenizer calls so, also where a content spells them."""
    tokenizer = talking(CHATML)
    (context,) = _contexts(tokenizer, _messages(("user", "a<|im_end|>b")))
    tokens = tokenizer.convert_ids_to_tokens(context.ids.tolist())
    special = [token for token, is_so in zip(tokens, context.special, strict=True) if is_so]
    assert ["<|im_start|>", "<|im_end|>", "<|im_end|>"] == special
    assert {"user"} == set(_roles(context))


def test_a_token_of_two() -> None:
    """A token of two roles' characters is its who says all but the space, else nobody's."""
    tokenizer = talking("{% for m in messages %}{{ m.content }}{% endfor %}")
    (word,) = tokenizer(" Paris", add_special_tokens=False)["input_ids"]
    (context,) = _contexts(tokenizer, _messages(("user", "é "), ("assistant", "Paris")))
    assert word == context.ids[-1]
    assert ["user", "assistant"] == _roles(context)
    (context,) = _contexts(tokenizer, _messages(("user", "é Pa"), ("assistant", "ris")))
    assert word == context.ids[-1]
    assert ["user", ""] == _roles(context)


def test_arrays() -> None:
    """Roles are text of one dtype, beside the ids; spans are in the rendered text."""
    (context,) = _contexts(talking(CHATML), _messages(HI, YO))
    assert (ROLE, len(context.ids)) == (context.roles.dtype, len(context.roles))
    text = context.samples[0].text
    assert text == "".join(text[a:b] for a, b in context.spans.tolist())
    batch = collate([context, *_contexts(talking(CHATML), _messages(HI))])
    assert batch.role is not None
    assert (batch.ids.shape, ROLE) == (batch.role.shape, batch.role.dtype)
    assert {"user", ""} == set(batch.role[1].tolist())


# --- long chats ---------------------------------------------------------------------------------

LONG = _messages(HI, ("assistant", "the rain in Paris " * 3), OK)


@pytest.mark.parametrize("template", [CHATML, LLAMA3])
def test_split(template: str) -> None:
    """Pieces hold all tokens once, with their roles; a first token of nobody's leads each."""
    tokenizer = talking(template)
    (whole,) = _contexts(tokenizer, LONG)
    pieces = _contexts(tokenizer, LONG, limit=9)
    lead = 1 if template is LLAMA3 else 0
    assert all(9 >= len(piece.ids) for piece in pieces)
    assert [True] * lead == [bool(piece.ids[0] == whole.ids[0]) for piece in pieces][:lead]
    ids = [*whole.ids[:lead], *(i for piece in pieces for i in piece.ids[lead:])]
    assert whole.ids.tolist() == ids
    roles = [*_roles(whole)[:lead], *(r for piece in pieces for r in _roles(piece)[lead:])]
    assert _roles(whole) == roles


def test_truncate() -> None:
    """The first piece of a long chat, counted."""
    (whole,) = _contexts(talking(CHATML), LONG)
    encoder = Encoder(talking(CHATML), 9, "truncate", chat="messages")
    (piece,) = encoder([_sample(LONG)])
    assert _roles(whole)[:9] == _roles(piece)
    assert len(whole.ids) - 9 == encoder.counts.tokens_dropped


def test_pack() -> None:
    """Packed chats keep who says what; a separator is nobody's."""
    plain = talking("{% for m in messages %}{{ m.content }}{% endfor %}")
    packed = _contexts(plain, _messages(("user", "é")), _messages(YO), limit=3, overflow="pack")
    assert [["user", "", "assistant"], ["assistant"]] == [_roles(c) for c in packed]
    chats = [LONG, _messages(HI, YO)]
    found = _contexts(talking(CHATML), *chats, limit=7, overflow="pack")
    whole = _contexts(talking(CHATML), *chats)
    assert [r for c in whole for r in _roles(c)] == [r for c in found for r in _roles(c)]


# --- where chats come from ----------------------------------------------------------------------

ROWS = [{"messages": _messages(HI, YO), "label": "a"}, {"messages": _messages(OK), "label": "b"}]


def _frame(folder: Path) -> Any:
    import pandas as pd

    return pd.DataFrame(ROWS)


def _jsonl(folder: Path) -> Path:
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def _parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "c.parquet")
    return folder / "c.parquet"


SOURCES: dict[str, Callable[[Path], Any]] = {
    "list": lambda folder: ROWS,
    "generator": lambda folder: (row for row in ROWS),
    "jsonl": _jsonl,
    "parquet": _parquet,
    "datasets": lambda folder: datasets.Dataset.from_list(ROWS),
    "pandas": _frame,
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources(name: str, tmp_path: Path) -> None:
    """Every format that holds lists of messages gives the same tokens, and the other columns."""
    expected = _contexts(talking(CHATML), *(row["messages"] for row in ROWS))
    dataset = open_data(SOURCES[name](tmp_path), chat=True)
    found = list(Encoder(talking(CHATML), chat="messages")(dataset))
    assert [c.ids.tolist() for c in expected] == [c.ids.tolist() for c in found]
    assert [_roles(c) for c in expected] == [_roles(c) for c in found]
    assert ["a", "b"] == [c.samples[0].row["label"] for c in found]


def test_another_column() -> None:
    """`column` names the messages, where they are not called so."""
    rows = [{"talk": _messages(HI), "text": "x"}]
    (context,) = Encoder(talking(CHATML), chat="talk")(open_data(rows, column="talk", chat=True))
    assert {"user"} == set(_roles(context))


def test_fingerprint() -> None:
    """Other messages are other data: their order, their roles, their words."""
    chats = [[HI, YO], [YO, HI], [HI], [("user", "Yo"), YO], [("system", "Hi"), YO]]
    prints = set()
    for chat in chats:
        dataset = open_data([{"messages": _messages(*chat)}], chat=True)
        list(dataset)
        prints.add(dataset.fingerprint)
    assert len(chats) == len(prints)


def test_an_empty_line(tmp_path: Path) -> None:
    """A line without anything is an empty sample, as of texts."""
    path = tmp_path / "c.jsonl"
    path.write_text("\n" + json.dumps(ROWS[0]) + "\n")
    encoder = Encoder(talking(CHATML), chat="messages")
    assert [1] == [c.samples[0].index for c in encoder(open_data(path, chat=True))]
    assert (2, 1) == (encoder.counts.samples, encoder.counts.samples_empty)


def test_skipped() -> None:
    """With ``on_error`` "skip" a chat that the template refuses is left out, and listed."""
    encoder = Encoder(talking(LLAMA2), chat="messages", on_error="skip")
    samples = [_sample(_messages(HI)), _sample(_messages(YO), 1), _sample(_messages(OK), 2)]
    assert [0, 2] == [c.samples[0].index for c in encoder(samples)]
    assert 3 == encoder.counts.samples
    said = "the chat template refuses these messages: Conversation roles must alternate "
    said += "user/assistant/user/assistant/..."
    assert [(1, -1, said)] == [(s.sample, s.chunk, s.reason) for s in encoder.refused]


# --- a whole run --------------------------------------------------------------------------------


@pytest.mark.real_weights
def test_run(smollm2: Model) -> None:
    """A run on SmolLM2 sees as many tokens of each role as its own template writes."""
    messages = _messages(HI, ("assistant", "The capital is Paris."), OK)
    tree = hookql.run(
        'capture count from model.layers[0] where role == "assistant"',
        model=smollm2,
        data=[{"messages": messages}],
        chat=True,
    )
    tokenizer: Any = smollm2.tokenizer
    text = tokenizer.apply_chat_template(messages[1:2], tokenize=False)
    own = text[text.index("<|im_start|>assistant") :]
    expected = len(tokenizer(own, add_special_tokens=False)["input_ids"])
    counts = [node["count"].item() for node in tree.leaves if "count" in node]
    assert [expected] == counts
    assert 64 == len(tree.attrs["chat_template"])


# --- what is refused ----------------------------------------------------------------------------


def _fails(messages: object, template: str = CHATML) -> Callable[[], Any]:
    return lambda: _contexts(talking(template), messages)


SWAPPED = "{% for m in messages %}{{ m.role + m.content | reverse }}{% endfor %}"
REFUSED: dict[str, Callable[[], Any]] = {
    "no-template": lambda: Encoder(talking(None), chat="messages"),
    "slow": lambda: _contexts(_with_template(slow()), _messages(HI)),
    "alternate": _fails(_messages(HI, OK), LLAMA2),
    "undefined": _fails(_messages(HI), "{{ messages[0].nothing.at }}"),
    "broken-template": _fails(_messages(HI), "{% for m in messages %}"),
    "several-templates": lambda: Encoder(_several(), chat="messages"),
    "unclear": _fails(_messages(HI), SWAPPED),
    "gaps": lambda: _said(talking(GAPS), _messages(HI), prompt=True),
    "text": _fails("Hi"),
    "empty": _fails([]),
    "message-text": _fails(["Hi"]),
    "other-keys": _fails([{"from": "human", "value": "Hi"}]),
    "no-key": _fails([*_messages(HI), {"role": "user"}]),
    "no-content": _fails([*_messages(HI), {"role": "user", "content": None}]),
    "role-number": _fails([{"role": 1, "content": "Hi"}]),
    "role-empty": _fails(_messages(("", "Hi"))),
    "role-long": _fails(_messages(("u" * 33, "Hi"))),
    "parts": _fails([{"role": "user", "content": [{"type": "image"}]}]),
    "content-number": _fails([{"role": "user", "content": 3}]),
    "surrogate": _fails(_messages(("user", "a\ud800"))),
    "too-many": _fails(_messages(*[HI] * 1001)),
    "too-long": _fails(_messages(("user", "a" * (1 << 24)), HI)),
    "error": lambda: _contexts(talking(CHATML), LONG, limit=9, overflow="error"),
    "no-column": lambda: open_data([{"text": "x"}], chat=True),
    "line-without": lambda: list(open_data(({"a": "x"} for _ in "ab"), chat=True)),
    "texts": lambda: open_data(texts=["Hi"], chat=True),
    "demo": lambda: hookql.run("capture mean from h[*]", data=ROWS, chat=True),
    "inputs": lambda: hookql.run("capture mean from h[*]", inputs={}, chat=True),
}


def _several() -> Any:
    tokenizer = talking(None)
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}
    return tokenizer


def _with_template(tokenizer: Any) -> Any:
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, golden: Golden) -> None:
    """What is no chat, or cannot be told apart, is named with its sample."""
    with pytest.raises(HookQLError) as caught:
        REFUSED[name]()
    golden(f"data/chat-{name}.txt", f"{caught.value}\n")


def test_roles_as_text() -> None:
    """Roles that a template cuts or changes do not matter: the message says who speaks."""
    shout = "{% for m in messages %}{{ m.role | upper + ': ' + m.content + '\\n' }}{% endfor %}"
    said = _said(talking(shout), _messages(HI, YO))
    assert [("user", "USER: Hi\n"), ("assistant", "ASSISTANT: Yo\n")] == said
    (context,) = _contexts(talking(shout), _messages(HI, YO))
    assert np.array_equal(["user", "assistant"], list(dict.fromkeys(_roles(context))))
