"""A query that looks on: in a training loop of your own, and around your own `generate`."""

import torch

import hookql

model = hookql.load_model("demo")
gpt, tokenizer = model.module, model.tokenizer
tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
texts = ["In the beginning", "The king sent them into the land of Egypt", "And it came to pass"]
batch = tokenizer(texts, return_tensors="pt", padding=True)

# 1. How the residual stream grows, layer by layer, while the model is trained.
plan = hookql.compile("capture rms from @resid_post[*] where not special pool feature").bind(model)
optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-3)
labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
gpt.train()
with plan:
    for step in range(1, 7):
        loss = gpt(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 3 == 0:
            sizes = " ".join(f"{size:6.2f}" for size in plan.result()["rms"].values)
            print(f"step {step}   loss {loss.item():.2f}   rms by layer {sizes}")
            plan.reset()
gpt.eval()

# 2. Prompt and continuation apart, while it generates. Each token counts once, as it is fed.
plan = hookql.compile("capture mean(norm(x)) as size from @resid_post[*] by phase").bind(model)
with plan:
    ids = gpt.generate(**batch, max_new_tokens=12, do_sample=False, pad_token_id=0)
print(tokenizer.batch_decode(ids, skip_special_tokens=True))
print(plan.result()["size"].to_series().unstack().round(1))
