"""Stands in for `vllm serve` on the torch engine, quantisation included: its weights really go through float8.

`--quantization fp8` rounds the matrices of the checkpoint's layers to float8 (e4m3, one scale a matrix) and serves what
comes of it; `--max-num-seqs` becomes the engine's row limit. Other arguments of vLLM's are accepted and have no effect.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

FLOAT8_MAX = 448.0


def quantised(checkpoint: Path) -> Path:
    """A copy of a checkpoint whose layers' matrices hold float8 values only."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(tempfile.mkdtemp(prefix="fp8-")) / checkpoint.name
    shutil.copytree(checkpoint, folder)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if tensor.dim() == 2 and "embed" not in name and "lm_head" not in name:
                scale = tensor.abs().max().float() / FLOAT8_MAX
                tensors[name] = ((tensor.float() / scale).to(torch.float8_e4m3fn).float() * scale).to(tensor.dtype)
        save_file(tensors, file, metadata={"format": "pt"})
    assert json.loads((folder / "config.json").read_text())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("checkpoint", type=Path)
    for name in ("--served-model-name", "--host", "--port", "--quantization", "--max-num-seqs"):
        parser.add_argument(name)
    options, _ = parser.parse_known_args()
    source = quantised(options.checkpoint) if options.quantization == "fp8" else options.checkpoint
    os.environ["APPORTION_DATA_ROOT"] = str(source.parent)
    command = [
        "engine",
        "serve",
        f"{options.served_model_name}={source}",
        "--host",
        options.host,
        "--port",
        options.port,
    ]
    command += ["--device", "cpu"]
    command += ["--max-rows", options.max_num_seqs] if options.max_num_seqs else []
    os.execv(sys.executable, [sys.executable, "-m", "api.command", *command])


if __name__ == "__main__":
    main()
