"""The same comparison where there is a GPU: larger shapes, random weights, bf16 products, TRL on the same device.

    python bench/gpu.py                 every workload; writes bench/gpu.json
    python bench/gpu.py G1 G3           these alone

TRL runs with torch's own attention and writes by `generate`. A step ends when the device has finished it; peak memory is what torch held on
the device. Written without a GPU at hand: it has not been run on one yet.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from compare import compare
from page import line
from sides import ask_once
from workloads import QWEN25, Workload, qwen3

FILE = Path(__file__).parent / "gpu.json"
TENTH = qwen3(hidden=768, layers=12, heads=12, head_dim=64, inner=2304, words=32_000)  # 0.12 B
LARGE = qwen3(hidden=2048, layers=28, heads=16, head_dim=128, inner=6144, words=151_936)  # 1.7 B, as Qwen3 is

WORKLOADS = {
    each.name: each
    for each in (
        Workload("G1", "0.1 B: 64 + 256, 16 × 8", "grpo", TENTH, 16, 8, 64, 256, 1e-4, 2.0, 3.0, precision="bf16"),
        Workload("G2", "0.5 B: 128 + 256, 16 × 8", "grpo", QWEN25, 16, 8, 128, 256, 1e-4, 3.0, 5.0, 0.7, precision="bf16"),
        Workload("G3", "0.5 B, long prompt: 1024 + 128, 8 × 16", "grpo", QWEN25, 8, 16, 1024, 128, 1e-4, 4.0, 8.0, precision="bf16"),
        Workload("G4", "0.5 B, DPO: 1024 + 2 × 128, 16 pairs", "dpo", QWEN25, 16, 2, 1024, 128, 1e-5, 1.5, 1.8, precision="bf16"),
        Workload("G5", "0.5 B, SFT on ragged texts, against TRL packed", "sft", QWEN25, 64, 1, 0, 512, 1e-4, 1.3, 2.0, precision="bf16"),
        Workload("G6", "1.7 B: 128 + 128, 8 × 8", "grpo", LARGE, 8, 8, 128, 128, 1e-5, 3.0, 5.0, 0.7, precision="bf16", apart=True),
    )
}


def main() -> None:
    names = sys.argv[1:] or list(WORKLOADS)
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found["machine"] = ask_once("machine:serve", (), folder / "machine.log")
        for name in names:
            found[name] = compare(WORKLOADS[name], folder, found["machine"], None)
            print(line(name, found[name]), flush=True)
            FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
