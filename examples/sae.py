"""A small sparse autoencoder: from a query to latents and the tokens that they answer to.

It is a top-k autoencoder: of 448 latents a row is rebuilt from the 16 that are strongest.
"""

import os

import torch

import hookql
from hookql.demo import text_path

STEPS = int(os.environ.get("SAE_STEPS", "600"))
LATENTS, K, WIDTH = 448, 16, 112
torch.manual_seed(0)

# 1. The rows: the residual stream behind block 4, of each token of the demo's text.
model = hookql.load_model("demo")
query = 'capture values from @resid_post[4] where not special into "acts.nc"'
hookql.run(query, model=model, data=text_path(), overwrite=True)
rows = hookql.training_batches("acts.nc", batch_size=512, seed=0, drop_last=True)
print(f"{rows.rows:,} rows of {rows.row_shape}, {len(rows)} batches an epoch")


class TopK(torch.nn.Module):
    """x -> the K strongest latents -> x again."""

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale
        self.decoder = torch.nn.Parameter(torch.randn(LATENTS, WIDTH))
        self.decoder.data /= self.decoder.data.norm(dim=1, keepdim=True)
        self.encoder = torch.nn.Parameter(self.decoder.data.clone())
        self.bias = torch.nn.Parameter(torch.zeros(LATENTS))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """All latents (n, LATENTS) of rows (n, WIDTH)."""
        return ((x - self.mean) / self.scale) @ self.encoder.T + self.bias

    def forward(self, x: torch.Tensor, dead: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, a share of the variance that is not rebuilt, and which latents were used.

        What the K leave is rebuilt from K latents that were not used for long, so that these learn.
        """
        all_of_them = self.encode(x)
        best = all_of_them.topk(K)
        target = (x - self.mean) / self.scale
        rebuilt = self.decoded(best.values, best.indices)
        loss = (target - rebuilt).pow(2).mean() / target.pow(2).mean()
        if int(dead.sum()) >= K:
            asleep = all_of_them.masked_fill(~dead, -torch.inf).topk(K)
            left = (target - rebuilt).detach()
            again = self.decoded(asleep.values, asleep.indices)
            loss = loss + (left - again).pow(2).mean() / left.pow(2).mean() / 32
        return loss, best.indices

    def decoded(self, values: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Rows made of some latents each."""
        return (values.relu().unsqueeze(-1) * self.decoder[latents]).sum(1)


# 2. Training, epoch after epoch.
some = next(iter(rows))
sae = TopK(some.mean(0), some.std())
optimizer = torch.optim.Adam(sae.parameters(), lr=2e-3)
idle = torch.zeros(LATENTS)  # steps since each latent was last used
step, losses = 0, []
while step < STEPS:
    for batch in rows:
        loss, used = sae(batch, idle > 50)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sae.decoder.data /= sae.decoder.data.norm(dim=1, keepdim=True)
        idle += 1
        idle[used.unique()] = 0
        losses.append(loss.item())
        if step % (STEPS // 6) == 0 or step == STEPS - 1:
            print(f"step {step:>4}   loss {loss.item():.3f}   idle {int((idle > 50).sum())}")
        step += 1
        if step == STEPS:
            break

# 3. What latents answer to: the tokens at their strongest rows, for some that answer to one word.
labelled = hookql.training_batches("acts.nc", 4096, shuffle=False, metadata=True)
strength, tokens = [], []
with torch.no_grad():
    for part in labelled:
        strength.append(sae.encode(part.values).relu())
        tokens.append(part.token_id)
strong, token = torch.cat(strength), torch.cat(tokens)
top = strong.topk(8, dim=0)  # (8, LATENTS)
tops = [[model.tokenizer.decode([int(token[row])]) for row in rows] for rows in top.indices.T]
words = [{word.strip().lower() for word in each} for each in tops]
clear = [len(each) == 1 and all(len(word) > 2 for word in each) for each in words]
order = sorted(
    range(LATENTS), key=lambda latent: (not clear[latent], -float(top.values[7, latent]))
)
for latent in order[:6]:
    print(f"latent {latent:>3}: {' | '.join(tops[latent])}")
