"""What is said of bad detectors, each in a golden file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hookql
from hookql.attached import (
    BatchAccumulator,
    Detector,
    LayerActivationDetector,
    ModelInputDetector,
    ModelOutputDetector,
    StatisticsDetector,
    attach,
)
from hookql.models.paranoid import paranoid
from tests.attached.made import Counting, Failing, batch, gpt2


class Made(Detector):
    """Does what it is made with."""

    def __init__(self, act: Callable[[Any, Any, Any], Any]) -> None:
        self.act = act

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> Any:
        """Act, and return what that returns."""
        return self.act(self, input, output)


def passing(key: str, detector: Any, **more: Any) -> hookql.HookQLError:
    """The error of two passes with one detector, called `tried`."""
    model, _ = gpt2()
    if isinstance(detector, Detector):
        detector.id = "tried"
    with pytest.raises(hookql.HookQLError) as caught:
        two_passes(model, {key: detector}, more or batch())
    return caught.value


def two_passes(model: nn.Module, detectors: Any, inputs: Any) -> None:
    """Two passes over the same inputs."""
    with attach(model, detectors):
        model(**inputs)
        model(**inputs)


def shown(errors: list[hookql.HookQLError]) -> str:
    """Their texts, one below another."""
    return "\n\n".join(map(str, errors)) + "\n"


def test_a_detector_that_fails(golden: Callable[[str, str], None]) -> None:
    """An error names the detector, the module and the batch, and has the first as its cause."""
    error = passing("h[1].mlp", Failing())
    assert isinstance(error, hookql.ModelError)
    assert isinstance(error.__cause__, ValueError)
    outside, detector = gpt2()[0], Failing()
    detector.id = "tried"
    with attach(outside, {"h[0].mlp": detector}):
        rows = torch.zeros(1, 2, outside.config.hidden_size)
        outside.transformer.h[0].mlp(rows)
        with pytest.raises(hookql.ModelError) as caught:
            outside.transformer.h[0].mlp(rows)
    returning = passing("h[0]", Made(lambda self, input, output: output))
    golden("attached/failing.txt", shown([error, caught.value, returning]))


def test_an_error_that_the_model_swallows_is_raised_all_the_same() -> None:
    """A model's own `except Exception` does not hide that something is missing."""

    class Swallowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """The layer, or x itself."""
            try:
                y: torch.Tensor = self.layer(x)
            except Exception:
                return x
            return y

    model = Swallowing()
    with attach(model, {"layer": Failing()}):
        model(torch.ones(1, 2))
        with pytest.raises(hookql.ModelError) as caught:
            model(torch.ones(1, 2))
    assert "detector-failed" == caught.value.code


def in_place(self: Any, input: Any, output: Any) -> None:
    """The most usual slip: an underscore."""
    self.call.tensor.mul_(2)


def by_data(self: Any, input: Any, output: Any) -> None:
    """Past autograd's count of versions."""
    self.call.tensor.data[0, 0, 0] = float("nan")


def by_key(self: Any, input: Any, output: Any) -> None:
    """Another tensor in what the model returns."""
    output["logits"] = output["logits"] * 2


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    ("key", "act"), [("h[0]", in_place), ("h[0].mlp:input", by_data), ("output", by_key)]
)
def test_writing_is_caught_under_paranoia(key: str, act: Any, grad: bool) -> None:
    """Bits, versions and containers are compared; without paranoia bits are not."""
    model, _ = gpt2()
    with torch.set_grad_enabled(grad), paranoid():
        with attach(model, {key: Made(act)}), pytest.raises(hookql.ModelError) as caught:
            model(**batch())
        with attach(model, {"**": Counting(), "**:input": Counting()}):
            model(**batch())
    assert "detector-wrote" == caught.value.code
    with torch.set_grad_enabled(grad), paranoid(False), attach(model, {key: Made(act)}):
        if act is by_data:
            model(**batch())
            return
        with pytest.raises(hookql.ModelError) as caught:
            model(**batch())
    assert "detector-wrote" == caught.value.code


def test_who_wrote_what(golden: Callable[[str, str], None]) -> None:
    """The detector, the tensor, the module and the batch."""
    with paranoid(), torch.no_grad():
        errors = [passing("h[0]", Made(in_place)), passing("h[0].mlp:input", Made(by_data)),
                  passing("output", Made(by_key))]  # fmt: skip
    golden("attached/wrote.txt", shown(errors))


def test_an_engines_tap_that_writes_is_caught() -> None:
    """HookQL's own hooks are held to the same."""
    from hookql.models.hooks import hooked
    from hookql.models.ports import HookPoint

    model, _ = gpt2()
    point = HookPoint("transformer.h.0", "output")

    def tap(x: torch.Tensor) -> None:
        x.add_(1)

    taps = {point: tap}
    with (
        paranoid(),
        torch.no_grad(),
        hooked(model, taps),
        pytest.raises(hookql.ModelError) as caught,
    ):
        model(**batch())
    assert "detector-wrote" == caught.value.code
    assert "transformer.h.0" in caught.value.message


def test_what_cannot_be_attached(golden: Callable[[str, str], None]) -> None:
    """Keys with carets, and values that are no detectors."""

    class Asking(Counting):
        def __init__(self, much: int) -> None:
            self.much = much

    keys = ["h[0].atn", "h[7]", "h[0", "h[0] where not special", "@resid_pots[0]", "h[0]:wrong"]
    errors = [passing(key, Counting) for key in keys]
    errors += [passing("h[0]", given) for given in (3, Asking, lambda: 3, [Counting, None])]
    errors += [passing("h[*]", LayerActivationDetector())]
    model, _ = gpt2()
    for wrong, detectors in ((object(), {}), (model, [Counting()])):
        with pytest.raises(hookql.UsageError) as caught:
            two_passes(wrong, detectors, {})  # type: ignore[arg-type]
        errors.append(caught.value)
    one = LayerActivationDetector()
    with attach(model, {"h[0]": one}), pytest.raises(hookql.UsageError) as caught:
        two_passes(model, {"h[0]": one}, batch())
    errors.append(caught.value)
    with pytest.raises(hookql.UsageError) as caught:
        _ = one.call
    text = shown([*errors, caught.value])
    golden("attached/keys.txt", text.replace(one.id, "LayerActivationDetector-1"))


def test_what_ready_made_detectors_refuse(
    golden: Callable[[str, str], None], tmp_path: Path
) -> None:
    """Options that are wrong, and tensors of which they can make nothing."""
    made: list[Callable[[], Any]] = [
        lambda: StatisticsDetector("meen"),
        lambda: StatisticsDetector("mean", "quantile(2)"),
        lambda: StatisticsDetector("values"),
        lambda: StatisticsDetector("top(k=3)"),
        lambda: StatisticsDetector("mean(x > 0)"),
        lambda: StatisticsDetector("mean from h[0]"),
        lambda: LayerActivationDetector("flot16"),
        lambda: ModelInputDetector("<pad>"),
        lambda: BatchAccumulator(max_rows=0),
        lambda: BatchAccumulator().save(tmp_path / "rows.pt"),
    ]
    errors = []
    for make in made:
        with pytest.raises(hookql.HookQLError) as caught:
            make()
        errors.append(caught.value)
    wide = {"inputs_embeds": torch.zeros(1, 2, gpt2()[0].config.hidden_size)}
    additive = batch() | {"attention_mask": torch.zeros(3, 1, 11, 11)}
    statistics = StatisticsDetector("mean")
    errors += [passing("input", ModelInputDetector(), **wide),
               passing("h[0]", statistics, **additive),
               passing("h[0].mlp:input", ModelOutputDetector()),
               passing("h[0].attn:pattern", BatchAccumulator())]  # fmt: skip
    golden("attached/ready.txt", shown(errors).replace(str(tmp_path), "FOLDER"))


@pytest.mark.parametrize("kept", [[1, 2], 3, {"one": "text"}])
def test_what_is_no_tensor_among_the_tensors(kept: object) -> None:
    """`tensor_metadata` of anything else is an error that names the detector and its place."""

    def act(detector: Detector, *_: object) -> None:
        detector.tensor_metadata = kept if not isinstance(kept, dict) else dict(kept)  # type: ignore[assignment]

    error = passing("h[0]", Made(act))
    assert "detector-failed" == error.code
    assert "`tried`" in error.message
    assert "`tensor_metadata` holds tensors by name" in error.diagnostics[0].notes[0]
