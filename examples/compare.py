"""Two selections in one pass: how far the first token stands from the rest, layer by layer."""

import numpy as np
import xarray as xr

import hookql

result = hookql.run(
    """
    capture mean, std from transformer.h[*] where position == 0 as first
    capture mean, std from transformer.h[*] where position > 0 as rest
    """
)
first, rest = result["first/transformer.h"], result["rest/transformer.h"]
print(int(first["count"]), "first tokens,", int(rest["count"]), "others")

# The distance between the two means, in standard deviations of the rest, over all features.
distance = abs(first["mean"] - rest["mean"]) / rest["std"]
print(distance.median("feature").to_series().round(2))

# The same direction? The cosine between the two mean vectors.
cosine = (first["mean"] * rest["mean"]).sum("feature") / np.sqrt(
    (first["mean"] ** 2).sum("feature") * (rest["mean"] ** 2).sum("feature")
)
print(xr.Dataset({"cosine": cosine}).to_dataframe()["cosine"].round(2))
