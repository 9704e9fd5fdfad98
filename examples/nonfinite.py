"""A damaged model, and the query that finds where: the demo with one number made infinite."""

import warnings
from pathlib import Path

import torch

import hookql
from hookql.results.table import render

model = hookql.load_model("demo")
with torch.no_grad():
    model.module.transformer.h[5].mlp.c_proj.bias[7] = torch.inf

# That NaN and infinities were met is a warning; here they are what is looked for.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", hookql.HookQLWarning)
    result = hookql.run(Path(__file__).with_name("nonfinite.hq"), model=model, limit=10)
print(render(result))
