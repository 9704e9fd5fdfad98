"""First steps: run a query, look at the result with xarray, keep it as a file."""

import hookql

result = hookql.run("capture mean, std from transformer.h[0:6].attn where token != pad")

# The result is an xarray tree; a query of one capture and one role has its numbers at the root.
print(dict(result["std"].sizes))

# One layer, by its number: 112 numbers along `feature`.
print(result["mean"].sel(layer=3)[:4].values.round(3))

# The typical spread, layer by layer, as a pandas series.
print(result["std"].median("feature").to_series().round(3))

# Which feature spreads most, in each layer.
print(result["std"].argmax("feature").values)

# Which module each layer is, and how the result was made.
print(result["module"].values[0], result.attrs["tokens_run"], result.attrs["forward_share"])

# As a file: written whole or not at all, and read back as it was.
result = hookql.run(
    "capture mean, std from transformer.h[0:6].attn where token != pad",
    output="first_steps.nc",
    overwrite=True,
)
print(hookql.load("first_steps.nc").identical(result))
