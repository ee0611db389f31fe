"""Ways to write Mobile MQA in ONNX, measured beside each other on ONNX Runtime, one thread.

    python experiments/benchmarks/2026-11-22_reference_export/attention_forms.py

Each form is a whole block: projections, attention, output projection, residual. All compute the same, up to the order of the
query's channels.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from latency.settings import Effort
from latency.target import load_target

HERE = Path(__file__).parent
TARGET = load_target("host")
EFFORT = Effort(processes=4, slices=12, tolerance=0.005, limit_s=4.0)
SHAPES = [(160, 16, 8, 4, 64), (256, 8, 8, 4, 64), (192, 24, 12, 8, 48), (512, 12, 12, 8, 64)]


class Block:
    """A block in the making: channels, side of the queries' map, side of the keys' map, heads, channels a head."""

    def __init__(self, channels: int, side: int, kv_side: int, heads: int, size: int) -> None:
        self.channels, self.side, self.heads, self.size = channels, side, heads, size
        self.tokens, self.kv_tokens = side**2, kv_side**2
        self.random = np.random.default_rng(0)
        self.nodes: list[object] = []
        self.tensors: list[object] = []
        reduced = {"k": "x", "v": "x"}
        if kv_side != side:
            for name in reduced:
                filters = self.filters(f"down.{name}", (channels, 1, 3, 3))
                window = {"group": channels, "strides": [2, 2], "pads": [1] * 4}
                reduced[name] = self.node("Conv", ["x", filters], f"{name}.down", **window)
        self.node("Conv", ["x", self.filters("query", (heads * size, channels, 1, 1))], "q")
        for name, source in reduced.items():
            self.node("Conv", [source, self.filters(name + ".w", (size, channels, 1, 1))], name)

    def filters(self, name: str, shape: tuple[int, ...]) -> str:
        return self.constant(
            name, (self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        )

    def constant(self, name: str, value: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def reshape(self, source: str, *shape: int) -> str:
        return self.node("Reshape", [source, self.constant(f"{source}.shape", np.asarray(shape))], f"{source}.reshaped")

    def finish(self, mixed: str) -> bytes:
        self.reshape(mixed, 1, self.heads * self.size, self.side, self.side)
        filters = self.filters("project", (self.channels, self.heads * self.size, 1, 1))
        projected = self.node("Conv", [f"{mixed}.reshaped", filters], "projected")
        self.node("Add", [projected, "x"], "y")
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, self.channels, self.side, self.side])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "attention", [image], [result], self.tensors)
        opset = [helper.make_opsetid("", 20)]
        return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def by_head(block: Block) -> bytes:
    """What is shipped: a batched product over heads, positions last, the scale as a product of its own."""
    q = block.node(
        "Transpose", [block.reshape("q", 1, block.heads, block.size, block.tokens)], "rows", perm=[0, 1, 3, 2]
    )
    k = block.reshape("k", 1, 1, block.size, block.kv_tokens)
    v = block.reshape("v", 1, 1, block.size, block.kv_tokens)
    scale = block.constant("scale", np.asarray(block.size**-0.5, np.float32))
    scores = block.node("Mul", [block.node("MatMul", [q, k], "scores"), scale], "scaled")
    shares = block.node("Softmax", [scores], "shares", axis=-1)
    columns = block.node("Transpose", [shares], "columns", perm=[0, 1, 3, 2])
    return block.finish(block.node("MatMul", [v, columns], "mixed"))


def one_product(block: Block) -> bytes:
    """Query channels ordered dimension first, so that one Gemm serves all heads; the batch must be 1."""
    q = block.reshape("q", block.size, block.heads * block.tokens)
    k, v = (block.reshape(name, block.size, block.kv_tokens) for name in "kv")
    scores = block.node("Gemm", [q, k], "scores", transA=1, alpha=block.size**-0.5)
    shares = block.node("Softmax", [scores], "shares", axis=-1)
    return block.finish(block.node("Gemm", [v, shares], "mixed", transB=1))


def keys_first(block: Block) -> bytes:
    """The same order of channels, nothing transposed but the small key map; softmax over the axis of keys, not the last."""
    q = block.reshape("q", 1, block.size, block.heads * block.tokens)
    k, v = (block.reshape(name, 1, block.size, block.kv_tokens) for name in "kv")
    keys = block.node("Transpose", [k], "keys", perm=[0, 2, 1])
    shares = block.node("Softmax", [block.node("MatMul", [keys, q], "scores")], "shares", axis=1)
    return block.finish(block.node("MatMul", [v, shares], "mixed"))


FORMS: dict[str, Callable[[Block], bytes]] = {"by_head": by_head, "one_product": one_product, "keys_first": keys_first}


def main() -> None:
    device = TARGET.open()
    lines = []
    for channels, side, kv_side, heads, size in SHAPES:
        models = [form(Block(channels, side, kv_side, heads, size)) for form in FORMS.values()]
        timings = device.measure(models, settings=TARGET.settings, effort=EFFORT)
        record = {
            "channels": channels,
            "side": side,
            "kv_side": kv_side,
            "heads": heads,
            "dimension": size,
            "ms": {name: round(timing.low_ms, 4) for name, timing in zip(FORMS, timings, strict=True)},
            "stable": {name: timing.stable for name, timing in zip(FORMS, timings, strict=True)},
            "load": os.getloadavg()[0],
        }
        lines.append(json.dumps(record) + "\n")
        print(lines[-1], end="", flush=True)
    (HERE / "attention_forms.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
