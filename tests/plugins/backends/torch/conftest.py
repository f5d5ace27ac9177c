"""Without a cuda device the kernels run in Triton's interpreter, which must be chosen before its import."""

from __future__ import annotations

import os

import torch

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # 3.9 warns where this is left open
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
