"""From a trained model to something that runs: ONNX, INT8, parity, the package, and the Detector that serves it.

Takes a model folder of crywolf.train and gives a package folder; `Detector` needs onnxruntime and tokenizers alone.
"""

from .detector import Detector
from .detectors import LoadedDetector, load_detector
from .exporter import ExportResult, check_place, export_package
from .package import PackageInfo
from .parity import Parity
from .rules import RuleSet, load_rules
from .voting import Ensemble, load_ensemble, model_hashes

__all__ = [
    "Detector",
    "Ensemble",
    "ExportResult",
    "LoadedDetector",
    "PackageInfo",
    "Parity",
    "RuleSet",
    "check_place",
    "export_package",
    "load_detector",
    "load_ensemble",
    "load_rules",
    "model_hashes",
]
