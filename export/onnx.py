"""From a trained model folder to ONNX, and from ONNX to dynamic INT8.

Takes the torch module and file names, writes ONNX files. The graph reads `input_ids` and `attention_mask` (int64,
(batch, tokens), both free) and gives `logits` (batch, 2) and `threat_logits` (batch, threat types), float32.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INPUTS = ["input_ids", "attention_mask"]
OUTPUTS = ["logits", "threat_logits"]
OPSET = 18


def write_onnx(module: Any, path: Path) -> Path:
    """Write the torch `module` (forward(input_ids, attention_mask) -> two tensors) to `path` as float32 ONNX."""
    import torch

    module = module.eval().float()
    # Two unequal sizes that are neither 0 nor 1, so that nothing is specialised to them.
    ids = torch.ones((2, 7), dtype=torch.int64)
    mask = torch.ones_like(ids)
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=512)
    with _quiet(), torch.inference_mode():
        torch.onnx.export(
            module,
            (ids, mask),
            str(path),
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=OPSET,
            dynamic_shapes={name: {0: batch, 1: tokens} for name in INPUTS},
            dynamo=True,
            external_data=False,
        )
    _strip(path)
    return path


def _strip(path: Path) -> None:
    """Take out what the exporter notes beside the graph: stack traces with paths of this machine, in every node.

    Without them the same weights give the same file wherever it was made.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)


def quantize(source: Path, target: Path) -> Path:
    """Quantize a float32 ONNX file to dynamic INT8: weights per channel, embeddings too, activations at run time.

    Weights keep 7 bits (`reduce_range`): on processors without VNNI the eighth overflows the 16-bit sums, and one
    prompt would have another score there.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True, extra_options={}
        )
    return target


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress chatter off the user's screen; errors still come as exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
