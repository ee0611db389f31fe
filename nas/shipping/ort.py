"""The `ort` format: ONNX Runtime's own, for mobile and minimal builds, with the list of operators such a build needs.

The graph is optimised beforehand, but not for one processor's layout: the file runs on any. Beside it lies its
``.required_operators.config``, which `onnxruntime`'s build takes as ``--include_ops_by_config``.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import onnxruntime

CONFIG = ".required_operators.config"
ANY_PROCESSOR = ["NchwcTransformer"]  # the optimisations that bind a file to one kind of processor


def to_ort(model: bytes) -> tuple[bytes, str]:
    """A serialised ONNX model in ONNX Runtime's format, and the operators that it needs, one domain and opset a line."""
    from onnxruntime.tools.ort_format_model import create_config_from_models

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="pocketnas-") as folder:
        path, config = Path(folder) / "model.ort", Path(folder) / "operators.config"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(path)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=ANY_PROCESSOR
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves the closing of the file to Python
            create_config_from_models([path], config, enable_type_reduction=False)
        operators = [line for line in config.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        return path.read_bytes(), "\n".join(operators) + "\n"


def config_path(path: Path) -> Path:
    """Where the list of operators of a file lies."""
    return path.with_name(path.stem + CONFIG)
