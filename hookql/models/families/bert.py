"""BERT: an encoder that norms the stream after each half; a transform stands before its logits."""

from hookql.models.families.table import Family, at, by_head

SITES = {
    "resid_mid": at("attention.output"),
    "attn": at("attention.output.dense"),
    "attn_out": at("attention.output.dense"),
    "mlp": at("output.dense"),
    "mlp_out": at("output.dense"),
    "mlp_act": at("output.dense:input"),
    "q": at("attention.self.query", by_head),
    "k": at("attention.self.key", by_head),
    "v": at("attention.self.value", by_head),
    "z": at("attention.output.dense:input", by_head),
    "pattern": at("attention.self:pattern"),
}

FAMILY = Family(
    name="BERT",
    types=("bert",),
    bases=("bert",),
    blocks="{base}encoder.layer",
    sites=SITES,
    final_norm=None,
    unembed="cls.predictions.decoder",
    head=(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.transform_act_fn",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder",
    ),
    design="post-norm",
    embeds_positions=True,
    note="the stream is normed after each half: `@resid_mid` is the norm of what was added up",
)
