"""Chat templates of the kinds that models come with, shortened, and a tokenizer to put them in."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.data.toys import byte_bpe

CHATML = """\
{% for m in messages %}\
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# A system prompt of its own where there is none (Qwen2, SmolLM2).
DEFAULT_SYSTEM = (
    """\
{% if messages[0].role != 'system' %}\
{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}"""
    + CHATML
)

# The first token before everything, a date before the system's words, contents stripped (Llama 3).
LLAMA3 = """\
{{ '<s>' }}{% if messages[0].role == 'system' %}{% set words = messages[0].content | trim %}\
{% set messages = messages[1:] %}{% else %}{% set words = '' %}{% endif %}\
{{ '<|im_start|>system\\n\\nToday: 1 May\\n\\n' + words + '<|im_end|>' }}\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n\\n' + m.content | trim + '<|im_end|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n\\n' }}{% endif %}"""

# The system's words inside the first user's, the first token at every question (Llama 2).
LLAMA2 = """\
{% if messages[0].role == 'system' %}{% set words = '<<SYS>>\\n' + messages[0].content + \
'\\n<</SYS>>\\n\\n' %}{% set rest = messages[1:] %}{% else %}{% set words = '' %}\
{% set rest = messages %}{% endif %}{% for m in rest %}\
{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
{% endif %}{% if m.role == 'user' %}\
{{ '<s>[INST] ' + (words if loop.first else '') + m.content.strip() + ' [/INST]' }}\
{% else %}{{ ' ' + m.content.strip() + ' </s>' }}{% endif %}{% endfor %}"""

# The system's words inside the last user's (Mistral).
MOVED = """\
{{ '<s>' }}{% if messages[0].role == 'system' %}{% set words = messages[0].content + '\\n\\n' %}\
{% set rest = messages[1:] %}{% else %}{% set words = '' %}{% set rest = messages %}{% endif %}\
{% for m in rest %}{% if m.role == 'user' %}\
{% set last = loop.index0 >= loop.length - 1 - (loop.length - 1) % 2 %}\
{{ '[INST] ' + (words if last else '') + m.content + '[/INST]' }}\
{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"""

# No special tokens around the turns, a system prompt of its own (Vicuna).
VICUNA = """\
{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}\
{% set words = messages[0].content %}{% else %}{% set rest = messages %}\
{% set words = 'A chat.' %}{% endif %}{{ words }}{% for m in rest %}\
{% if m.role == 'user' %}{{ ' USER: ' + m.content }}\
{% else %}{{ ' ASSISTANT: ' + m.content + '</s>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"""

# Thoughts: shown, even where there are none, behind the last question; taken out before (Qwen 3).
THOUGHTS = """\
{% set last = namespace(at=0) %}{% for m in messages %}{% if m.role == 'user' %}\
{% set last.at = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}\
{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}\
{% set said = m.content.split('</think>')[-1].lstrip('\\n') %}\
{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') \
if '</think>' in m.content else '' %}{% if loop.index0 > last.at %}\
{{ '<think>\\n' + thought + '\\n</think>\\n\\n' + said }}{% else %}{{ said }}{% endif %}\
{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# What the model says stands between words that transformers can find again.
GENERATION = """\
{% for m in messages %}{% if m.role == 'assistant' %}\
{% generation %}{{ '<|im_start|>assistant\\n' + m.content + '<|im_end|>\\n' }}{% endgeneration %}\
{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}\
{% endfor %}"""

# Tool calls in a message of no content.
TOOLS = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}\
{% if m.tool_calls %}\
{% for call in m.tool_calls %}{{ '<call>' + call.name + '</call>' }}{% endfor %}\
{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"""

# The end of the whole chat where no answer is asked for; no empty system prompt (Phi 3).
PHI3 = """\
{% for m in messages %}{% if m.role != 'system' or m.content %}\
{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

# Gaps between turns, and an end behind the last alone: nobody knows whose gaps are (Blenderbot).
BLENDERBOT = """\
{% for m in messages %}{{ ' ' if m.role == 'user' }}{{ m.content }}\
{{ '  ' if not loop.last }}{% endfor %}{{ eos_token }}"""

# The end is left out for an answer, the gaps are tokens: these are no header.
GAPS = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}\
{{ '<|im_end|>' if not loop.last }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_end|><|im_start|>assistant\\n' }}\
{% else %}{{ eos_token }}{% endif %}"""


def talking(template: str | None, bos: str = "<s>") -> Any:
    """A byte-level BPE with that template, and the special tokens that they all use."""
    from tokenizers import Tokenizer

    inner = Tokenizer.from_str(byte_bpe().backend_tokenizer.to_str())
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=bos,
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=template,
    )
