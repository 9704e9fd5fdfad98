"""Models that you bring: a torch module with a tokenizer, and a vision model with its pixels."""

import torch
from transformers import AutoTokenizer, ViTConfig, ViTModel

import hookql
from hookql.demo import model_path


class Bag(torch.nn.Module):
    """A model of one's own: three layers on top of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(2048, 16)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(3))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


# A module with a tokenizer runs on text. Padding is HookQL's affair, not the model's.
torch.manual_seed(0)
result = hookql.run(
    "capture rms from layers[*] where position >= 1 pool feature",
    model=Bag(),
    tokenizer=AutoTokenizer.from_pretrained(model_path()),
    texts=["In the beginning", "God created the heaven and the earth."],
)
print(result["rms"].to_series().round(3))

# Other models are given their inputs: tensors whose first axis is the samples. Here positions are
# patches, and position 0 is the class token.
config = ViTConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    image_size=32,
    patch_size=8,
)
pixels = torch.randn(6, 3, 32, 32)
result = hookql.run(
    """
    capture std from layers[*] where position == 0 pool feature as class_token
    capture std from layers[*] where position > 0 pool feature as patches
    """,
    model=ViTModel(config, add_pooling_layer=False).eval(),
    inputs={"pixel_values": pixels},
)
for name in ("class_token", "patches"):
    data = result[f"{name}/layers"]
    print(name, int(data["count"]), data["std"].values.round(4))
