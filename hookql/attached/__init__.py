"""Detectors by hand: what a person puts on the modules of a model, without a query."""

from hookql.attached.accumulator import BatchAccumulator
from hookql.attached.attaching import attach
from hookql.attached.detector import Call, Detector
from hookql.attached.inputs import ModelInputDetector
from hookql.attached.layers import LayerActivationDetector
from hookql.attached.outputs import ModelOutputDetector
from hookql.attached.reduced import StatisticsDetector

__all__ = [
    "BatchAccumulator",
    "Call",
    "Detector",
    "LayerActivationDetector",
    "ModelInputDetector",
    "ModelOutputDetector",
    "StatisticsDetector",
    "attach",
]
