"""The untrained encoder that every training on digits stands beside."""

from stopgrad.experiments.exact.control import untrained
from stopgrad.training.pretrain import run
from stopgrad.training.settings import resolve


def test_it_is_what_a_run_says_of_its_own_start(tmp_path):
    # of another method than it names none: the encoder is the same
    changes = {
        "method": "simsiam", "seed": 3, "data": {"limit": 128}, "epochs": 1, "schedule": {"warmup_epochs": 0},
        "device": "cpu", "threads": 1, "evaluation": {"images": 32, "control": True},
    }  # fmt: skip
    said = run(resolve(changes), tmp_path / "run", show_progress=False)["untrained"]
    found = untrained(3, limit=128).numbers
    assert found == {name: said[name] for name in found}
    assert len(found) == 5
    assert untrained(4, limit=128).numbers != found
