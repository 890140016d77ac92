"""The key of a trial, and what a file holds."""

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.errors import UsageError
from stopgrad.experiments.schema import Result, Trial
from stopgrad.experiments.store import Store, commit, here, source_digest

TRIAL = Trial("exact", {"c": "zero"}, "tian2021.integral")
SOURCES = {"training": "a", "exact": "b"}


def test_what_is_put_in_comes_out(store):
    assert store.get(TRIAL) is None
    result = Result({"drift": 0.1 + 0.2}, {"t": [0.0, 1 / 3], "p": [[1.0], [None]]})
    path = store.put(TRIAL, result, 1.25)
    record = store.get(TRIAL)
    assert record.result == result
    assert (record.spec, record.seconds, record.source) == (TRIAL.spec, 1.25, "b")
    assert path.stem == store.key(TRIAL)
    assert len(path.stem) == 16
    assert set(json.loads(path.read_text())) == {
        *("spec", "source", "environment", "commit", "seconds", "finished", "result", "peak_gib")
    }


def test_a_record_from_before_the_memory_was_measured_loads(store):
    path = store.put(TRIAL, Result({"drift": 0.0}), 1.0, 0.75)
    assert store.get(TRIAL).peak_gib == 0.75
    old = json.loads(path.read_text())
    del old["peak_gib"]
    path.write_text(json.dumps(old))
    assert store.get(TRIAL).peak_gib is None


def test_a_key_is_of_spec_source_and_environment(tmp_path):
    key = Store(tmp_path, SOURCES, {"torch": "1"}).key
    others = [
        Store(tmp_path, SOURCES, {"torch": "1"}).key(Trial("exact", {"c": "free"}, TRIAL.function)),
        Store(tmp_path, SOURCES, {"torch": "1"}).key(
            Trial("exact", dict(TRIAL.arguments), "tian2021.lemma1")
        ),
        Store(tmp_path, SOURCES | {"exact": "c"}, {"torch": "1"}).key(TRIAL),
        Store(tmp_path, SOURCES, {"torch": "2"}).key(TRIAL),
    ]
    assert key(TRIAL) == Store(tmp_path, SOURCES, {"torch": "1"}).key(
        Trial("exact", {"c": "zero"}, TRIAL.function)
    )
    # of training alone
    assert key(TRIAL) == Store(tmp_path, SOURCES | {"training": "c"}, {"torch": "1"}).key(TRIAL)
    assert len({key(TRIAL), *others}) == 5


@given(st.dictionaries(st.text(max_size=5), st.integers(-(10**6), 10**6), min_size=1))
def test_the_order_of_literals_does_not_matter_their_values_do(tmp_path_factory, arguments):
    key = Store(tmp_path_factory.getbasetemp(), SOURCES, {}).key
    whole = key(Trial("exact", arguments, "f"))
    assert whole == key(Trial("exact", dict(reversed(arguments.items())), "f"))
    name = next(iter(arguments))
    assert whole != key(Trial("exact", {**arguments, name: arguments[name] + 1}, "f"))


def test_this_environment_names_what_numbers_depend_on():
    assert set(here()) == {"python", "torch", "machine", "threads"}


@pytest.fixture
def package(tmp_path):
    files = (
        "parts/a.py", "theory/b.py", "theory/figures/g.py", "report/c.py", "cli/d.py", "explorer/h.py",
        "experiments/papers/e.py", "files.py", "experiments/rules.py", "experiments/trials.py",
        "experiments/exact/f.py", "reporting.py",
    )  # fmt: skip
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def digests(package):
    source_digest.cache_clear()
    return source_digest("training", package), source_digest("exact", package)


@pytest.mark.parametrize(
    ("name", "training", "exact"),
    [
        ("parts/a.py", True, True),
        ("files.py", True, True),
        ("reporting.py", True, True),
        ("experiments/trials.py", True, True),
        ("theory/b.py", False, True),
        ("experiments/exact/f.py", False, True),
        ("theory/figures/g.py", False, False),
        ("explorer/h.py", False, False),
        ("report/c.py", False, False),
        ("cli/d.py", False, False),
        ("experiments/papers/e.py", False, False),
        ("experiments/rules.py", False, False),
        ("parts/__pycache__/a.pyc", False, False),
    ],
)
def test_the_source_of_numbers_is_digested_and_nothing_else(package, name, training, exact):
    before = digests(package)
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text("changed")
    after = digests(package)
    assert [a != b for a, b in zip(after, before, strict=True)] == [training, exact]


def test_a_renamed_file_is_another_source(package):
    before = digests(package)
    (package / "parts/a.py").rename(package / "parts/z.py")
    assert all(a != b for a, b in zip(digests(package), before, strict=True))


def test_a_damaged_file_is_named(store):
    path = store.put(TRIAL, Result({"drift": 0.0}), 1.0)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UsageError, match=path.name):
        store.get(TRIAL)


def test_a_file_of_another_trial_is_named(store):
    path = store.put(TRIAL, Result({"drift": 0.0}), 1.0)
    other = Trial("exact", {"c": "free"}, "tian2021.integral")
    path.rename(store.path(other))
    with pytest.raises(UsageError, match="another trial"):
        store.get(other)


def test_the_latest_of_any_source_is_of_the_same_spec(tmp_path):
    old = Store(tmp_path, SOURCES, {})
    old.put(TRIAL, Result({"drift": 1.0}), 1.0)
    old.put(Trial("exact", {"c": "free"}, "tian2021.integral"), Result({"drift": 2.0}), 1.0)
    new = Store(tmp_path, {"training": "x", "exact": "y"}, {})
    assert new.get(TRIAL) is None
    assert new.latest(TRIAL).result.numbers == {"drift": 1.0}
    # the arguments of one arm may be part of another's
    for arguments in ({"c": "zero", "new": 1}, {"c": "none"}, {}):
        assert new.latest(Trial("exact", arguments, "tian2021.integral")) is None


def test_a_setting_that_came_later_does_not_part_a_training_and_its_record(tmp_path):
    trial = Trial("training", {"method": "byol"})
    store = Store(tmp_path, SOURCES, {})
    path = store.put(trial, Result({"knn": 0.5}), 1.0)
    content = json.loads(path.read_text())
    del content["spec"]["settings"]["accumulate"]
    path.write_text(json.dumps(content))
    assert store.latest(trial).result.numbers == {"knn": 0.5}
    assert Store(tmp_path, SOURCES, {}).latest(Trial("training", {"method": "simsiam"})) is None


def test_a_setting_that_came_later_does_not_part_a_prediction_and_its_record(tmp_path):
    def prediction(changes, **settings):
        arguments = {"settings": {"data": {"name": "digits"}} | settings, "changes": changes}
        return Trial("exact", arguments, "counterpart.predicted")

    store = Store(tmp_path, SOURCES, {})
    store.put(prediction({}), Result({"rank": 2.0}), 1.0)
    later = {"data": {"name": "digits", "split": "train"}, "clip": None}
    assert store.latest(prediction({}, **later)).result.numbers == {"rank": 2.0}
    # what is no complete settings has to be equal
    assert store.latest(prediction({"beta": 1}, **later)) is None
    assert store.latest(prediction({}, data={"name": "folder", "split": "train"})) is None


def test_the_newest_record_wins(tmp_path):
    for source, finished in (("b", "2026-01-02T00:00:00+00:00"), ("c", "2026-01-01T00:00:00+00:00")):
        store = Store(tmp_path, SOURCES | {"exact": source}, {})
        path = store.put(TRIAL, Result({}), 1.0)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": finished}))
    assert Store(tmp_path, SOURCES, {}).latest(TRIAL).source == "b"


def test_the_commit_says_when_files_have_changed(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    assert commit(tmp_path / "nowhere") is None
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "a")
    commit.cache_clear()
    clean = commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    commit.cache_clear()
    assert commit(tmp_path) == f"{clean}+"
