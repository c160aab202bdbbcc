"""From a trained model to something that runs: ONNX, INT8, parity, the package, and the Detector that serves it.

Takes a model folder of crywolf.train and gives a package folder; `Detector` needs onnxruntime and tokenizers alone.
"""

from .detector import Detector
from .detectors import LoadedDetector, load_detector
from .exporter import ExportResult, check_place, export_package
from .package import PackageInfo
from .parity import Parity

__all__ = [
    "Detector",
    "ExportResult",
    "LoadedDetector",
    "PackageInfo",
    "Parity",
    "check_place",
    "export_package",
    "load_detector",
]
