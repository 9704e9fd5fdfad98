"""Small models with random weights, one for each family that the tests look at.

Two to four layers, width 16 to 64, 128 tokens, context 64: each is built in a fraction of a second,
the same every time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

VOCABULARY = 128
CONTEXT = 64

_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<cls>", "<sep>")
PAD, BOS, EOS, UNK, MASK, CLS, SEP = range(len(_SPECIAL))


def character_tokenizer(padding_side: str = "right", cls: bool = False) -> Any:
    """A tokenizer of single characters: printable ASCII, a newline, and ``<unk>`` for all else.

    Ids 0 to 6 are pad, bos, eos, unk, mask, cls, sep; with ``cls`` texts are wrapped in
    ``<cls> ... <sep>`` as BERT's are, and else nothing is added.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *characters])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    if cls:
        inner.post_processor = processors.TemplateProcessing(
            single="<cls> $A <sep>",
            pair="<cls> $A <sep> $B <sep>",
            special_tokens=[("<cls>", CLS), ("<sep>", SEP)],
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<cls>",
        sep_token="<sep>",
        padding_side=padding_side,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def tiny(name: str) -> tuple[nn.Module, Any, int]:
    """The model of that family (eval, float32, seeded), its tokenizer or None, its vocabulary."""
    state = torch.random.get_rng_state()
    torch.manual_seed(20240607)
    try:
        model = (_BUILDERS | _DESIGNS)[name]()
    finally:
        torch.random.set_rng_state(state)
    # Initial biases of 0 and scales of 1 would hide errors in what reads them.
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.dtype), alpha=0.05)
    model.config.architectures = [type(model).__name__]
    tokenizer = None if name == "vit" else character_tokenizer(cls=name.startswith(_ENCODERS))
    return model.float().eval(), tokenizer, 0 if name == "vit" else VOCABULARY


_ENCODERS = ("bert", "roberta", "xlm_roberta", "albert", "distilbert")
_IDS = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, **_IDS}
_LLAMA = {
    **_COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_BERT = {
    **_COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
_GEMMA = {**_LLAMA, "head_dim": 8}


def _gpt2() -> nn.Module:
    config = hf.GPT2Config(
        n_layer=4, n_embd=32, n_head=4, vocab_size=VOCABULARY, n_positions=CONTEXT, **_IDS
    )
    return hf.GPT2LMHeadModel(config)


def _mixtral() -> nn.Module:
    return hf.MixtralForCausalLM(
        hf.MixtralConfig(**_LLAMA, num_local_experts=4, num_experts_per_tok=2, sliding_window=None)
    )


def _t5() -> nn.Module:
    config = hf.T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
    )
    return hf.T5ForConditionalGeneration(config)


def _mamba() -> nn.Module:
    config = hf.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2, **_IDS
    )
    return hf.MambaForCausalLM(config)


def _vit() -> nn.Module:
    config = hf.ViTConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    return hf.ViTModel(config)


def _opt() -> nn.Module:
    config = hf.OPTConfig(
        **_COMMON,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
    )
    return hf.OPTForCausalLM(config)


def _bloom() -> nn.Module:
    config = hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=3, n_head=4, **_IDS)
    return hf.BloomForCausalLM(config)


def _falcon() -> nn.Module:
    config = hf.FalconConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        **_IDS,
    )
    return hf.FalconForCausalLM(config)


def _roberta() -> nn.Module:
    # Its positions begin after the padding id: 64 of them need PAD + 1 rows more.
    config = hf.RobertaConfig(**{**_BERT, "max_position_embeddings": CONTEXT + PAD + 1})
    return hf.RobertaModel(config, add_pooling_layer=False)


def _albert() -> nn.Module:
    return hf.AlbertModel(hf.AlbertConfig(**_BERT, embedding_size=16))


_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": _gpt2,
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_LLAMA)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_LLAMA, sliding_window=None)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_LLAMA)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_GEMMA)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**_GEMMA)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_GEMMA, sliding_window=16)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_GEMMA, sliding_window=16)),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**_LLAMA)),
    "phi3": lambda: hf.Phi3ForCausalLM(
        hf.Phi3Config(**_LLAMA, original_max_position_embeddings=CONTEXT)
    ),
    "opt": _opt,
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_BERT)),
    "bloom": _bloom,
    "falcon": _falcon,
    "bert": lambda: hf.BertModel(hf.BertConfig(**_BERT)),
    "roberta": _roberta,
    "albert": _albert,
    "t5": _t5,
    "mixtral": _mixtral,
    "mamba": _mamba,
    "vit": _vit,
}
NAMES = tuple(_BUILDERS)


def _neox(parallel: bool) -> nn.Module:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    return hf.GPTNeoXForCausalLM(
        hf.GPTNeoXConfig(**_BERT, use_parallel_residual=parallel, rope_parameters=rope)
    )


def _opt_post_norm() -> nn.Module:
    config = hf.OPTConfig(
        **_COMMON,
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        do_layer_norm_before=False,
    )
    return hf.OPTForCausalLM(config)


def _falcon_like(**options: Any) -> nn.Module:
    config = hf.FalconConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bias=True,
        **_IDS,
        **options,
    )
    return hf.FalconForCausalLM(config)


def _t5_like(kind: str, **options: Any) -> nn.Module:
    config = getattr(hf, f"{kind}Config")(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=6,
        d_ff=48,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=4,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        **options,
    )
    return getattr(hf, f"{kind}ForConditionalGeneration")(config)


def _gpt_neo() -> nn.Module:
    config = hf.GPTNeoConfig(
        **_COMMON,
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=4,
    )
    return hf.GPTNeoForCausalLM(config)


def _gptj() -> nn.Module:
    config = hf.GPTJConfig(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=32,
        n_layer=3,
        n_head=4,
        rotary_dim=4,
        **_IDS,
    )
    return hf.GPTJForCausalLM(config)


def _distilbert() -> nn.Module:
    config = hf.DistilBertConfig(
        **_COMMON, dim=32, hidden_dim=48, n_layers=3, n_heads=4, activation="gelu"
    )
    return hf.DistilBertForMaskedLM(config)


def _qwen2_moe() -> nn.Module:
    config = hf.Qwen2MoeConfig(
        **_LLAMA,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
    )
    return hf.Qwen2MoeForCausalLM(config)


def _granite() -> nn.Module:
    config = hf.GraniteConfig(
        **_LLAMA,
        embedding_multiplier=3.0,
        residual_multiplier=0.3,
        attention_multiplier=0.2,
        logits_scaling=5.0,
        attention_bias=True,
    )
    return hf.GraniteForCausalLM(config)


_PARTLY = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_CAPPED = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}

# Designs within a family, and families, that only some tests look at; `tiny` builds them too.
_DESIGNS: dict[str, Callable[[], nn.Module]] = {
    "llama-biased": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**_LLAMA, attention_bias=True, mlp_bias=True)
    ),
    "mistral-window": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_LLAMA, sliding_window=4)),
    "gemma2-capped": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**_GEMMA, **_CAPPED, sliding_window=4, query_pre_attn_scalar=5)
    ),
    "gemma3-window": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(
            **{**_GEMMA, "num_hidden_layers": 7},
            sliding_window=4,
            query_pre_attn_scalar=5,
            final_logit_softcapping=3.0,
        )
    ),
    "gpt_neox-sequential": lambda: _neox(parallel=False),
    "gpt_neox-parallel": lambda: _neox(parallel=True),
    "opt-post-norm": _opt_post_norm,
    "falcon-biased": lambda: _falcon_like(),
    "falcon-grouped": lambda: _falcon_like(new_decoder_architecture=True, num_kv_heads=2),
    "falcon-sequential": lambda: _falcon_like(multi_query=False, parallel_attn=False, alibi=True),
    "falcon-alibi": lambda: _falcon_like(multi_query=True, parallel_attn=True, alibi=True),
    "bert-mlm": lambda: hf.BertForMaskedLM(hf.BertConfig(**_BERT)),
    "roberta-mlm": lambda: hf.RobertaForMaskedLM(
        hf.RobertaConfig(**{**_BERT, "max_position_embeddings": CONTEXT + PAD + 1})
    ),
    "xlm_roberta": lambda: hf.XLMRobertaForMaskedLM(
        hf.XLMRobertaConfig(**{**_BERT, "max_position_embeddings": CONTEXT + PAD + 1})
    ),
    "distilbert": _distilbert,
    "t5-gated": lambda: _t5_like("T5", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mt5": lambda: _t5_like("MT5"),
    "gpt_neo": _gpt_neo,
    "gptj": _gptj,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**_GEMMA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    ),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**_LLAMA)),
    "granite": _granite,
    "cohere": lambda: hf.CohereForCausalLM(
        hf.CohereConfig(**_LLAMA, logit_scale=0.4, use_qk_norm=True)
    ),
    "phi-normed": lambda: hf.PhiForCausalLM(
        hf.PhiConfig(
            **{**_LLAMA, "num_key_value_heads": 4}, qk_layernorm=True, rope_parameters=_PARTLY
        )
    ),
    "stablelm": lambda: hf.StableLmForCausalLM(
        hf.StableLmConfig(**_LLAMA, qk_layernorm=True, rope_parameters=_PARTLY)
    ),
    "stablelm-parallel": lambda: hf.StableLmForCausalLM(
        hf.StableLmConfig(**_LLAMA, use_parallel_residual=True, rope_parameters=_PARTLY)
    ),
}
DESIGNS = tuple(_DESIGNS)
