import pytest
import yaml

from stopgrad.catalog import CATALOG
from stopgrad.errors import UsageError
from stopgrad.training.recipes import RECIPES
from stopgrad.training.settings import assignment, merge, read_yaml, resolve, validate


@pytest.mark.parametrize("method", CATALOG)
@pytest.mark.parametrize("recipe", ["auto", "paper", "digits-smoke", "folder"])
def test_yaml_round_trip(method, recipe):
    settings = resolve({"method": method, "recipe": recipe})
    assert validate(yaml.safe_load(settings.to_yaml())) == settings
    # complete settings resolve to themselves: config.yaml runs the same run again
    assert resolve(yaml.safe_load(settings.to_yaml())) == settings


@pytest.mark.parametrize("method", [m for m in CATALOG if m != "supervised"])
def test_sentence_is_the_catalogues_up_to_the_recipe(method):
    settings = resolve({"method": method, "recipe": "digits"})
    entry = CATALOG[method].method
    assert settings.sentence.but(target=entry.target, predictor=entry.predictor) == entry
    assert settings.sentence.target.kind == entry.target.kind
    assert settings.sentence.predictor.kind == entry.predictor.kind
    assert settings.projector.final_bn == CATALOG[method].projector.final_bn


def test_every_recipe_serves_every_method():
    for recipe in RECIPES:
        for method in CATALOG:
            resolve({"method": method, "recipe": recipe})


def test_a_paper_has_its_recipe():
    own = resolve({"method": "directpred", "recipe": "paper"})
    assert (own.optimizer.lr, own.batch_size, own.view_size) == (0.03, 128, 96)
    assert own.projector.hidden_affine is False
    assert resolve({"method": "wmse", "recipe": "paper"}).distance.slice == 128
    assert (
        resolve({"method": "dino-centering", "recipe": "paper"}).epochs == resolve({}).epochs
    )  # it has none
    assert {entry.recipe for entry in CATALOG.values()} <= {"auto", *RECIPES}


def test_precedence_user_over_recipe_over_catalogue():
    assert CATALOG["byol"].method.target.tau == 0.996
    assert resolve({"method": "byol"}).target.tau == 0.99
    assert resolve({"method": "byol", "target": {"tau": 0.5}}).target.tau == 0.5


def test_another_kind_takes_the_recipes_defaults_for_that_kind():
    settings = resolve({"method": "directpred", "predictor": {"kind": "mlp"}})
    assert settings.predictor.hidden == RECIPES["digits"]["predictor"]["mlp"]["hidden"]
    assert resolve({"method": "byol", "predictor": {"kind": "linear", "symmetric": True}}).predictor.symmetric


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "byool"}, ["method", "byool", "did you mean 'byol'"]),
        ({"recipe": "digit"}, ["recipe", "did you mean 'digits'"]),
        ({"predictr": 1}, ["predictr", "did you mean 'predictor'"]),
        ({"predictor": {"epps": 1}}, ["predictor.epps", "did you mean 'eps'"]),
        ({"optimizer": {"predictor": {"lr_scal": 1}}}, ["optimizer.predictor.lr_scal", "lr_scale"]),
        ({"predictor": {"eps": -0.1}}, ["predictor.eps", "greater than or equal to 0", "-0.1"]),
        ({"epochs": "ten"}, ["epochs", "integer", "'ten'"]),
        ({"precision": "fp8"}, ["precision", "'bf16'"]),
        ({"threads": 0}, ["threads: input", "greater than or equal to 1, or input should be 'auto', got 0"]),
        ({"views": 5}, ["views: input", "string, or", "got 5"]),
        ({"target": {"kind": "emma"}}, ["target", "did you mean 'ema'", "same, ema"]),
        ({"method": "supervised", "predictor": {"kind": "mlp"}}, ["predictor", "supervised"]),
        ({"batch_size": 64, "accumulate": 3}, ["accumulate", "does not divide"]),
        ({"schedule": {"warmup_epochs": 99}}, ["schedule.warmup_epochs", "99"]),
        ({"optimizer": {"lr": 0}}, ["optimizer.lr", "greater than 0"]),
    ],
)
def test_faults_are_one_line_with_path_and_remedy(changes, words):
    with pytest.raises(UsageError) as caught:
        resolve(changes)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_assignment():
    assert assignment("predictor.eps=0.1") == {"predictor": {"eps": 0.1}}
    assert assignment("optimizer.lr=1e-3") == {"optimizer": {"lr": 0.001}}
    assert assignment("a.b.c=[1, 2]") == {"a": {"b": {"c": [1, 2]}}}
    assert assignment("optimizer.clip=null") == {"optimizer": {"clip": None}}
    for wrong in ("nothing", "=3", "a=[1"):
        with pytest.raises(UsageError, match="--set"):
            assignment(wrong)


def test_merge_replaces_a_part_of_another_kind():
    base = {"predictor": {"kind": "spectral", "eps": 0.1}, "epochs": 3}
    assert merge(base, {"predictor": {"eps": 0.2}})["predictor"] == {"kind": "spectral", "eps": 0.2}
    assert merge(base, {"predictor": {"kind": "linear"}})["predictor"] == {"kind": "linear"}
    assert base["predictor"]["eps"] == 0.1


def test_settings_files(tmp_path):
    path = tmp_path / "c.yaml"
    for content, words in (("a: [", "not YAML"), ("- 1\n", "holds no settings"), (None, "No such file")):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(UsageError, match=words):
            read_yaml(path)
