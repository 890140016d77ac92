"""What predictors hold after some steps, for `test_predictors.py`: alone, or as the ranks of torchrun.

python two_ranks.py SETTINGS.json OUT
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from stopgrad.parts.predictors import PredictorSettings

DIM, STEPS = 6, 3
PARTS = (slice(0, 12), slice(12, 32))  # of a joint batch; unequal, as the last of an epoch can be
JOINT = slice(0, 32)


def state(settings: dict, part: slice, dtype: torch.dtype) -> dict:
    """State of a fresh predictor after steps on a part of each joint batch, and what it then predicts."""
    torch.manual_seed(0)
    predictor = TypeAdapter(PredictorSettings).validate_python(settings).build(DIM).to(dtype)
    for _ in range(STEPS):
        z = torch.randn(2, 32, DIM, dtype=torch.float64) * torch.linspace(0.3, 2, DIM) + 0.5
        t = z.flip(0) + 0.5 * torch.randn(z.shape, dtype=torch.float64)
        predictor.after_step(*([view[part].to(dtype) for view in views] for views in (z, t)))
    with torch.no_grad():
        return dict(predictor.state_dict()) | {"p": predictor.eval()(torch.eye(DIM, dtype=dtype))}


def main(table: Path, out: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    rows = json.loads(table.read_text())
    states = [[state(row, PARTS[rank], dtype) for row in rows] for dtype in (torch.float64, torch.float32)]
    torch.save(states, out / f"{rank}.pt")
    dist.barrier()  # neither leaves while the other still talks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
