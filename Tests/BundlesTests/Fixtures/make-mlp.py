"""Makes the networks of this directory, rows for them and what float64 makes of them (numpy 2, safetensors 0.7).

    pip install numpy safetensors && python make-mlp.py      writes mlp-NAME.safetensors and mlp-NAME.csv: …,prediction
"""
import json, math, os
import numpy as np
from safetensors.numpy import save_file

here = os.path.dirname(os.path.abspath(__file__))
r = np.random.Generator(np.random.PCG64(8))
names = ["retrieval_score", "item.price", "item.kind", "user.age", "context.hour"]
kinds = ["tea", "cup", "pot", "bag"]
erf = np.vectorize(math.erf)
functions = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x / 2 * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}

# (score, price, kind, age, hour); nan = missing. Prices of all scales.
n = 120
rows = np.stack([r.standard_normal(n) * 3, np.exp(r.standard_normal(n) * 2 + 2), r.integers(0, 4, n),
                 r.integers(16, 90, n), r.integers(0, 24, n)], 1).astype(np.float32)
for column in range(1, 5):
    rows[r.random(n) < .15, column] = np.nan

def make(name, widths, act, normed=False, dtype=np.float32, bias=True, one_hot=True, last=None):
    features = ["retrieval_score", {"feature": "item.price", "missing": 7.5}, "user.age", "context.hour"]
    columns = [rows[:, 0], np.where(np.isnan(rows[:, 1]), np.float32(7.5), rows[:, 1]),
               np.nan_to_num(rows[:, 3]), np.nan_to_num(rows[:, 4])]
    if one_hot:
        # In the model's own order, one of them unknown to the schema, and "bag" left out.
        features.append({"feature": "item.kind", "one_hot": ["pot", "tea", "jug", "cup"]})
        columns += [np.where(rows[:, 2] == (kinds.index(k) if k in kinds else -1), 1, 0) for k in ["pot", "tea", "jug", "cup"]]
    x = np.stack(columns, 1).astype(np.float64)
    tensors, layers = {}, []
    mean, scale = x.mean(0).astype(np.float32), (x.std(0) + .1).astype(np.float32)
    tensors["input.mean"], tensors["input.scale"] = mean, scale
    x = (x - mean) / scale
    widths = [x.shape[1]] + widths + [1]
    for i, (a, b) in enumerate(zip(widths, widths[1:])):
        if normed and i:
            tensors[f"n{i}.weight"] = (1 + r.standard_normal(a) * .2).astype(np.float32)
            tensors[f"n{i}.bias"] = (r.standard_normal(a) * .1).astype(np.float32)
            layers.append({"type": "layer_norm", "weight": f"n{i}.weight", "bias": f"n{i}.bias", "eps": 1e-5})
            m, v = x.mean(1, keepdims=True), x.var(1, keepdims=True)
            x = (x - m) / np.sqrt(v + 1e-5) * tensors[f"n{i}.weight"] + tensors[f"n{i}.bias"]
        w = (r.standard_normal((b, a)) * math.sqrt(2 / a)).astype(np.float32)
        if dtype == "BF16":
            w = (w.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        elif dtype != np.float32:
            w = w.astype(dtype)
        tensors[f"{i}.weight"] = w
        layers.append({"type": "dense", "weight": f"{i}.weight"})
        x = x @ w.astype(np.float64).T
        if bias:
            tensors[f"{i}.bias"] = (r.standard_normal(b) * .1).astype(np.float32)
            layers[-1]["bias"] = f"{i}.bias"
            x = x + tensors[f"{i}.bias"]
        kind = act if i < len(widths) - 2 else last
        if kind:
            layers.append({"type": kind})
            x = functions[kind](x)
    path = os.path.join(here, f"mlp-{name}.safetensors")
    layout = {"features": features, "mean": "input.mean", "scale": "input.scale", "layers": layers}
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata={"shortlist": json.dumps(layout)})
    if dtype == "BF16":
        halve(path)
    with open(os.path.join(here, f"mlp-{name}.csv"), "w") as out:
        out.write(",".join(names) + ",prediction\n")
        for row, value in zip(rows, x[:, 0]):
            cells = ["" if np.isnan(v) else kinds[int(v)] if i == 2 else repr(float(v)) for i, v in enumerate(row)]
            out.write(",".join(cells) + "," + repr(float(value)) + "\n")

def halve(path):
    """numpy has no bfloat16: keeps the upper half of each weight."""
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    header, body, new, at = json.loads(data[8:8 + size]), data[8 + size:], b"", 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        part = body[start:end]
        if name[0].isdigit() and name.endswith("weight"):
            part, entry["dtype"] = np.frombuffer(part, np.uint16)[1::2].tobytes(), "BF16"
        entry["data_offsets"] = [len(new), len(new) + len(part)]
        new += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(len(text).to_bytes(8, "little") + text + new)

make("relu", [48, 33, 16], "relu")
make("gelu", [40, 17], "gelu", normed=True)
make("tanh", [24], "gelu_tanh", normed=True, bias=False, dtype=np.float16, one_hot=False)
make("sigmoid", [24], "sigmoid", last="sigmoid", dtype="BF16", one_hot=False)
