"""Every image once an epoch, whatever the number of ranks, where a run resumes, or who decodes."""

import itertools
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stopgrad.data.batches import Batch, Batches, evaluation_batches
from stopgrad.data.sources import ArrayPart, DataSettings, FilePart, load_dataset, load_folder_part
from stopgrad.data.sources.parts import Files
from stopgrad.data.views import evaluation_view, preset
from stopgrad.errors import UsageError

VIEWS = preset("simclr-32", 12)


def array_part(count: int, labelled: bool = True) -> ArrayPart:
    images = torch.randint(0, 256, (count, 3, 16, 14), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 5 if labelled else None
    return ArrayPart(images.to(torch.uint8), labels, [f"train/{i}" for i in range(count)])


@pytest.fixture
def file_part(draw, tmp_path: Path) -> FilePart:
    for i in range(21):
        Image.fromarray(draw(14 + i, 20, i)).save(tmp_path / f"{i:02}.png")
    part, _, _ = load_folder_part(tmp_path)
    assert isinstance(part, FilePart)
    return part


def same(a: Batch, b: Batch) -> bool:
    labels = a.labels is b.labels is None or torch.equal(a.labels, b.labels)
    return labels and torch.equal(a.index, b.index) and all(map(torch.equal, a.views, b.views))


@given(
    st.integers(1, 60), st.integers(1, 5), st.sampled_from([1, 2, 3]), st.integers(0, 9), st.integers(-3, 9)
)
@settings(max_examples=60, deadline=None)
def test_ranks_share_an_epoch_without_loss_or_repeat(count, share, world, epoch, seed):
    size = share * world
    if size > count:
        return
    part = array_part(count)
    ranks = [Batches(part, VIEWS, size, seed=seed, rank=r, world=world).order(epoch) for r in range(world)]
    joint = Batches(part, VIEWS, size, seed=seed).order(epoch)
    assert torch.equal(torch.cat(ranks, 1), joint)
    assert joint.shape == (count // size, size)
    assert joint.unique().numel() == joint.numel()
    assert joint.min() >= 0
    assert joint.max() < count


def test_order_depends_on_seed_and_epoch_only():
    part = array_part(50)
    orders = [Batches(part, VIEWS, 10, seed=s).order(e).flatten() for s in (0, 1) for e in (0, 1)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(orders, 2))
    assert all(order.sort().values.equal(torch.arange(50)) for order in orders)
    torch.manual_seed(123)
    assert torch.equal(Batches(part, VIEWS, 25, seed=0).order(1).flatten(), orders[1])


def test_order_is_uniform():
    """Over many epochs each image comes equally often at each place: chi-squared, 81 degrees of freedom."""
    batches = Batches(array_part(10), VIEWS, 10, seed=0)
    counts = torch.zeros(10, 10)
    for epoch in range(1000):
        counts[torch.arange(10), batches.order(epoch)[0]] += 1
    assert ((counts - 100) ** 2 / 100).sum() < 81 + 4 * (2 * 81) ** 0.5


@pytest.mark.parametrize("kind", ["array", "files", "files-in-process"])
def test_resume_equals_the_rest_of_the_epoch(kind, file_part):
    part = array_part(21) if kind == "array" else file_part
    workers = 0 if kind == "files-in-process" else 2
    whole = Batches(part, VIEWS, 4, seed=5, workers=workers)
    assert len(whole) == 5
    epochs = [list(whole.epoch(e)) for e in (0, 1)]
    assert [len(epoch) for epoch in epochs] == [5, 5]
    for epoch, start in ((1, 0), (1, 3), (0, 1), (0, 5)):
        resumed = list(Batches(part, VIEWS, 4, seed=5, workers=workers).epoch(epoch, start=start))
        assert len(resumed) == 5 - start
        assert all(same(a, b) for a, b in zip(resumed, epochs[epoch][start:], strict=True))
    assert not same(epochs[0][0], epochs[1][0])
    whole.close()


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("kind", ["array", "files"])
def test_shares_joined_are_the_batch_of_one_process(kind, world, file_part):
    part = array_part(21) if kind == "array" else file_part
    joint = list(Batches(part, VIEWS, 6, seed=1, workers=0).epoch(2))
    ranks = [
        list(Batches(part, VIEWS, 6, seed=1, rank=r, world=world, workers=0).epoch(2)) for r in range(world)
    ]
    assert len(joint) == 3
    for step, batch in enumerate(joint):
        shares = [rank[step] for rank in ranks]
        assert torch.equal(torch.cat([share.index for share in shares]), batch.index)
        for view in (0, 1):
            assert torch.equal(torch.cat([share.views[view] for share in shares]), batch.views[view])


def test_views_are_those_of_the_images_of_the_index():
    part = array_part(12)
    for batch in Batches(part, VIEWS, 4, seed=3).epoch(7):
        expected = VIEWS(part.images[batch.index], batch.index, seed=3, epoch=7)
        assert all(map(torch.equal, batch.views, expected))
        assert torch.equal(batch.labels, batch.index % 5)
        assert batch.views[0].shape == (4, 3, 12, 12)
        assert batch.index.dtype == torch.int64
    assert next(Batches(array_part(12, labelled=False), VIEWS, 4, seed=3).epoch(0)).labels is None


@pytest.mark.parametrize("kind", ["array", "files", "files-in-process"])
def test_more_views_change_nothing_of_the_first_two(kind, file_part):
    part = array_part(21) if kind == "array" else file_part
    workers = 0 if kind == "files-in-process" else 1
    two, five, again = (Batches(part, VIEWS, 6, seed=2, workers=workers, count=n) for n in (2, 5, 5))
    plain, many, resumed = list(two.epoch(1)), list(five.epoch(1)), list(again.epoch(1, start=1))
    assert (len(plain), len(many), len(resumed)) == (3, 3, 2)
    for pair, batch in zip(plain, many, strict=True):
        assert (len(pair.views), len(batch.views)) == (2, 5)
        assert all(map(torch.equal, pair.views, batch.views[:2]))
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(batch.views, 2))
        assert all(view.shape == (6, 3, 12, 12) for view in batch.views)
    assert all(map(same, many[1:], resumed))
    shares = [
        list(Batches(part, VIEWS, 6, seed=2, rank=r, world=2, workers=0, count=5).epoch(1)) for r in (0, 1)
    ]
    for batch, *parts in zip(many, *shares, strict=True):
        for view in range(5):
            assert torch.equal(torch.cat([part.views[view] for part in parts]), batch.views[view])
    for batches in (two, five, again):
        batches.close()


def test_images_too_many_for_the_device_give_the_same_batches(monkeypatch):
    part = array_part(12)
    resident = list(Batches(part, VIEWS, 4, seed=0).epoch(0))
    batches = Batches(part, VIEWS, 4, seed=0)
    batches._resident = False
    assert all(map(same, batches.epoch(0), resident))


def test_files_and_arrays_give_the_same_batches(draw, tmp_path: Path):
    """Crops made one by one in workers are those made in batches on the device, to rounding to uint8."""
    for i in range(12):
        Image.fromarray(draw(20, 20, i)).save(tmp_path / f"{i:02}.png")
    array, _, _ = load_folder_part(tmp_path)
    files = FilePart(Files(tmp_path, array.ids), None, 3)
    assert isinstance(array, ArrayPart)
    views = preset("simclr-32", 12).model_copy(update={"first": VIEWS.first[:1], "second": VIEWS.second[:1]})
    pairs = zip(
        Batches(array, views, 6, seed=0).epoch(1),
        Batches(files, views, 6, seed=0, workers=1).epoch(1),
        strict=True,
    )
    for a, b in pairs:
        assert torch.equal(a.index, b.index)
        assert (a.views[0] - b.views[0]).abs().max() < 1.01 / 255
        assert (a.views[1] - b.views[1]).abs().max() < 1.01 / 255


def test_epoch_left_early_does_not_spill_into_the_next(file_part):
    batches = Batches(file_part, VIEWS, 4, seed=0, workers=2)
    fresh = Batches(file_part, VIEWS, 4, seed=0, workers=0)
    for _ in zip(batches.epoch(0), range(2), strict=False):
        pass
    assert all(map(same, batches.epoch(1), list(fresh.epoch(1))))
    batches.close()
    assert all(map(same, batches.epoch(2), list(fresh.epoch(2))))
    batches.close()


def test_global_random_numbers_are_left_alone(file_part):
    """Otherwise a resumed run would draw other numbers than the uninterrupted one."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        batches = Batches(file_part, VIEWS, 4, seed=0, workers=workers)
        assert len(list(batches.epoch(0))) == 5
        assert len(list(evaluation_batches(file_part, 12, 7, workers=workers))) == 3
        batches.close()
    assert torch.equal(torch.get_rng_state(), before)


def test_mixed_folder_streams_and_survives_a_file_gone_bad(mixed_folder, caplog):
    root, _ = mixed_folder
    data = load_dataset(DataSettings(name="folder", dir=root))
    (root / data.train.ids[5]).write_bytes(b"")
    batches = Batches(data.train, VIEWS, 32, seed=0, workers=0)
    with caplog.at_level(logging.WARNING):
        seen = [batch for epoch in (0, 1) for batch in batches.epoch(epoch)]
    assert len(seen) == 8
    assert all(view.isfinite().all() and view.std() > 0.05 for batch in seen for view in batch.views)
    assert caplog.text.count("can no longer be read") == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_passes_through_in_order(workers, file_part):
    seen = list(evaluation_batches(file_part, 12, 8, workers=workers))
    assert [len(index) for index, _ in seen] == [8, 8, 5]
    assert torch.equal(torch.cat([index for index, _ in seen]), torch.arange(21))
    images = torch.cat([images for _, images in seen])
    assert images.shape == (21, 3, 12, 12)
    for i in range(21):
        assert torch.equal(images[i], evaluation_view(file_part[i][None], 12)[0])


def test_evaluation_of_arrays_equals_evaluation_of_files(draw, tmp_path: Path):
    for i in range(9):
        Image.fromarray(draw(20, 30, i)).save(tmp_path / f"{i:02}.png")
    array, _, _ = load_folder_part(tmp_path)
    files = FilePart(Files(tmp_path, array.ids), None, 3)
    for a, b in zip(
        evaluation_batches(array, 16, 4), evaluation_batches(files, 16, 4, workers=0), strict=True
    ):
        assert torch.equal(a[0], b[0])
        assert torch.allclose(a[1], b[1], atol=1e-6)


@pytest.mark.parametrize(
    ("size", "world", "says"), [(13, 1, "13.* 12 images"), (4, 3, "multiple of the 3"), (0, 1, "positive")]
)
def test_impossible_batches_are_refused(size, world, says):
    with pytest.raises(UsageError, match=says):
        Batches(array_part(12), VIEWS, size, seed=0, world=world)


def test_workers_end_with_the_batches(file_part):
    batches = Batches(file_part, VIEWS, 4, seed=0, workers=2)
    next(iter(batches.epoch(0)))
    processes = list(batches._loader._iterator._workers)
    assert all(process.is_alive() for process in processes)
    batches.close()
    for process in processes:
        process.join(10)
    assert not any(process.is_alive() for process in processes)
