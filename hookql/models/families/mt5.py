"""mT5: T5's design with an unembedding of its own, which nothing is scaled for."""

from attrs import evolve

from hookql.models.families import t5

FAMILY = evolve(t5.FAMILY, name="mT5", types=("mt5",), head=("decoder.final_layer_norm", "lm_head"))
ENCODER = evolve(t5.ENCODER, name="mT5", types=("mt5",))
