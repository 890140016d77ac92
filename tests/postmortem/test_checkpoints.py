"""Checkpoints as lightly, solo-learn, stable-pretraining, timm and torchvision write them.

The features must be those of the network that was saved; its batch norms have random weights and statistics.
"""

import numpy as np
import pytest
import timm
import torch
import torchvision
from lightly.models import ResNetGenerator
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from stopgrad import diagnostics
from stopgrad.errors import UsageError
from stopgrad.postmortem.checkpoints import load_foreign
from stopgrad.postmortem.diagnose import diagnose

SIZE = 32


def stir(net, seed=0):
    """Random statistics, so that each key matters."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_mean, -0.3), (module.running_var, 0.5), (module.weight, 0.5),
                                (module.bias, -0.3)):  # fmt: skip
                values.data.copy_(low + torch.rand(values.shape, generator=generator))
    return net.eval()


def images(channels=3):
    return torch.randn(4, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def check(path, model, net, channels=3):
    """The encoder read from the file computes what ``net`` does; returns what was found."""
    foreign = load_foreign(path, model, SIZE)
    x = images(channels)
    torch.testing.assert_close(foreign.encoder(x), net(x).flatten(1), rtol=1e-5, atol=1e-5)
    return foreign


def torchvision_resnet(padding=None, name="resnet18", classes=None):
    """torchvision's ResNet; with ``padding`` the stem that frameworks give it for CIFAR."""
    net = getattr(torchvision.models, name)(num_classes=classes or 7)
    if padding is not None:
        net.conv1 = nn.Conv2d(3, 64, 3, 1, padding, bias=False)
        net.maxpool = nn.Identity()
    if classes is None:
        net.fc = nn.Identity()
    return stir(net)


def prefixed(net, prefix):
    return {prefix + key: value for key, value in net.state_dict().items()}


def heads(*names):
    weights = nn.Sequential(nn.Linear(512, 8), nn.BatchNorm1d(8)).state_dict()
    return {f"{name}.{key}": value for name in names for key, value in weights.items()}


# ---- lightly


def lightly_module(backbone):
    import pytorch_lightning as pl

    class Byol(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"lr": 0.06})
            self.backbone = backbone
            self.projection_head = BYOLProjectionHead(512, 32, 16)
            self.prediction_head = BYOLPredictionHead(16, 32, 16)
            self.backbone_momentum = torch.nn.Sequential(*stir(torchvision.models.resnet18(), 5).children())[
                :-1
            ]
            self.projection_head_momentum = BYOLProjectionHead(512, 32, 16)

        def forward(self, x):
            return self.prediction_head(self.projection_head(self.backbone(x).flatten(1)))

        def training_step(self, batch, index):
            return self(batch).square().sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-5, momentum=0.9)

    return Byol()


def test_a_checkpoint_that_lightning_wrote_of_a_lightly_module(tmp_path):
    import pytorch_lightning as pl

    backbone = nn.Sequential(*list(torchvision_resnet(classes=9).children())[:-1])
    module = lightly_module(backbone)
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(images(), batch_size=4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    foreign = check(tmp_path / "last.ckpt", "timm/resnet18", backbone.eval())
    assert (foreign.library, foreign.prefix, foreign.layout) == (
        "lightly",
        "backbone.",
        "by number of the child",
    )
    assert foreign.keys == 100  # 20 convolutions, 20 batch norms of 4
    assert foreign.others == ("backbone_momentum.",)
    assert foreign.ignored == ("prediction_head", "projection_head", "projection_head_momentum")


def test_lightlys_own_resnet_in_a_sequential(tmp_path):
    resnet = stir(ResNetGenerator("resnet-18"))
    backbone = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1))
    torch.save(
        {"state_dict": {**prefixed(backbone, "backbone."), **heads("projection_head")}}, tmp_path / "a.ckpt"
    )
    foreign = check(tmp_path / "a.ckpt", "timm/resnet18", backbone)
    assert foreign.library == "lightly"
    assert any("no activation" in note for note in foreign.notes)


def test_lightlys_own_resnet_by_name(tmp_path):
    resnet = stir(ResNetGenerator("resnet-18"))
    torch.save(resnet.state_dict(), tmp_path / "a.pt")
    resnet.linear = nn.Identity()
    foreign = check(tmp_path / "a.pt", "resnet18", resnet)
    assert foreign.ignored == ("linear",)


# ---- solo-learn


@pytest.mark.parametrize("padding", [2, None])
def test_solo_learn(tmp_path, padding):
    net, slow = torchvision_resnet(padding), stir(torchvision_resnet(padding), 7)
    weights = {
        **prefixed(slow, "momentum_backbone."), **prefixed(net, "backbone."),
        "classifier.weight": torch.zeros(3, 512), **heads("projector", "momentum_projector", "predictor"),
    }  # fmt: skip
    torch.save({"epoch": 9, "state_dict": weights}, tmp_path / "a.ckpt")
    foreign = check(tmp_path / "a.ckpt", "timm/resnet18", net)
    assert (foreign.library, foreign.prefix, foreign.others) == (
        "solo-learn",
        "backbone.",
        ("momentum_backbone.",),
    )
    assert any("padding 2" in note for note in foreign.notes) == (padding == 2)


# ---- stable-pretraining


def test_stable_pretrainings_teacher_and_student(tmp_path):
    student, teacher = torchvision_resnet(1), stir(torchvision_resnet(1), 7)
    weights = {
        **prefixed(teacher, "backbone.teacher."), **prefixed(student, "backbone.student."),
        "backbone.ema_coefficient": torch.zeros(()), **heads("projector.student", "projector.teacher"),
        **heads("predictor"),
    }  # fmt: skip
    torch.save({"state_dict": weights, "pytorch-lightning_version": "2.6.6"}, tmp_path / "a.ckpt")
    foreign = check(tmp_path / "a.ckpt", "timm/resnet18", student)
    assert (foreign.library, foreign.prefix) == ("stable-pretraining", "backbone.student.")
    assert foreign.others == ("backbone.teacher.",)
    assert foreign.ignored == ("backbone", "predictor", "projector")


def test_stable_pretraining_without_a_teacher(tmp_path):
    net = torchvision_resnet(1)
    torch.save({"state_dict": {**prefixed(net, "backbone."), **heads("projector")}}, tmp_path / "a.ckpt")
    assert check(tmp_path / "a.ckpt", "resnet18", net).library == "stable-pretraining"


# ---- plain ones


def test_torchvision_and_timm_state_dicts(tmp_path):
    net = torchvision_resnet(classes=5)
    torch.save(net.state_dict(), tmp_path / "a.pth")
    net.fc = nn.Identity()
    foreign = check(tmp_path / "a.pth", "timm/resnet18", net)
    assert (foreign.library, foreign.prefix, foreign.ignored) == ("plain state dict", "", ("fc",))

    net = stir(timm.create_model("resnet14t", num_classes=0))
    save_file(net.state_dict(), tmp_path / "b.safetensors")
    assert check(tmp_path / "b.safetensors", "timm/resnet14t", net).ignored == ()

    net = stir(timm.create_model("convnext_atto", num_classes=5))
    torch.save({"model": net.state_dict()}, tmp_path / "c.bin")
    bare = stir(timm.create_model("convnext_atto", num_classes=0))
    bare.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("head.fc")})
    check(tmp_path / "c.bin", "timm/convnext_atto", bare)


def test_a_vit_with_its_head(tmp_path):
    net = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=SIZE).eval()
    torch.save({"state_dict": prefixed(net, "module.encoder.")}, tmp_path / "a.pth")
    net.reset_classifier(0)
    foreign = check(tmp_path / "a.pth", "timm/vit_tiny_patch16_224", net)
    assert foreign.ignored == ("module.encoder.head",)
    with pytest.raises(UsageError, match=r"another shape.*pos_embed.*--image-size"):
        load_foreign(tmp_path / "a.pth", "timm/vit_tiny_patch16_224")


def test_a_classifier_that_timm_names_otherwise(tmp_path):
    name = "deit_tiny_distilled_patch16_224"
    net = timm.create_model(name, num_classes=5, img_size=SIZE).eval()
    torch.save(net.state_dict(), tmp_path / "a.pth")
    net.reset_classifier(0)
    assert check(tmp_path / "a.pth", f"timm/{name}", net).ignored == ("head", "head_dist")
    torch.save(
        prefixed(net, "encoder.") | {"encoder.head_dist.weight": torch.zeros(5, 192)}, tmp_path / "b.pth"
    )
    assert check(tmp_path / "b.pth", f"timm/{name}", net).ignored == ("encoder.head_dist",)


def test_simsiams_code_and_mocos(tmp_path):
    net = torchvision_resnet()
    key = stir(torchvision_resnet(), 7)
    torch.save(
        {"state_dict": {**prefixed(net, "module.encoder."), **heads("module.encoder.fc")}}, tmp_path / "a.pth"
    )
    assert check(tmp_path / "a.pth", "resnet18", net).ignored == ("module.encoder.fc",)
    torch.save(
        {**prefixed(key, "module.encoder_k."), **prefixed(net, "module.encoder_q.")}, tmp_path / "b.pth"
    )
    foreign = check(tmp_path / "b.pth", "resnet18", net)
    assert (foreign.prefix, foreign.others) == ("module.encoder_q.", ("module.encoder_k.",))


def test_grey_images(tmp_path):
    net = stir(timm.create_model("resnet18", in_chans=1, num_classes=0))
    torch.save(net.state_dict(), tmp_path / "a.pt")
    assert check(tmp_path / "a.pt", "timm/resnet18", net, channels=1).encoder.channels == 1


def test_counters_that_old_checkpoints_lack_are_not_missed(tmp_path):
    net = torchvision_resnet()
    weights = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    torch.save(weights, tmp_path / "a.pt")
    assert check(tmp_path / "a.pt", "resnet18", net).keys == len(weights)


# ---- refusals


class Planted:
    def __reduce__(self):
        return pytest.fail, ("code in the file ran",)


def test_what_does_not_match_exactly_is_refused(tmp_path):
    net = torchvision_resnet()
    weights = prefixed(net, "backbone.")

    def refused(content, model, says):
        torch.save(content, tmp_path / "a.ckpt")
        with pytest.raises(UsageError, match=says) as error:
            load_foreign(tmp_path / "a.ckpt", model)
        assert "\n" not in str(error.value)

    missing = {k: v for k, v in weights.items() if k != "backbone.layer2.1.bn1.running_var"}
    refused(missing, "resnet18", r"99 of 100 keys of resnet18 found under 'backbone\.', the first missing is "
            r"'backbone\.layer2\.1\.bn1\.running_var'")  # fmt: skip
    refused(
        weights, "timm/resnet34", "100 of 180 keys of timm/resnet34 found .*'backbone.layer1.2.conv1.weight'"
    )
    deeper = prefixed(torchvision_resnet(name="resnet34"), "backbone.")
    refused(
        deeper, "resnet18", r"has 80 keys that resnet18 has not, the first is 'backbone\.layer1\.2\.conv1"
    )
    reshaped = {**weights, "backbone.layer4.0.conv1.weight": torch.zeros(512, 256, 1, 1)}
    refused(
        reshaped,
        "resnet18",
        r"1 of 100 keys .* another shape, .*\(512, 256, 1, 1\) and not \(512, 256, 3, 3\)",
    )
    refused(
        {**weights, "backbone.attention.weight": torch.zeros(3)}, "resnet18", "1 keys? that resnet18 has not"
    )
    refused({**weights, "backbone.conv1.weight": torch.zeros(64, 4, 7, 7)}, "resnet18", "1 or 3 channels")
    refused(
        {"student.vector": torch.zeros(3)}, "resnet18", "0 of 100 keys of resnet18 found; .* with student"
    )
    refused(weights, "resnet19", "--model resnet19: expected timm/NAME")
    refused(weights, "timm/resnet19", "no model 'resnet19'")
    refused({"epoch": 3}, "resnet18", "no state dict in it")
    refused([1], "resnet18", "no state dict in it")
    refused({"format": 1, "learner": {}}, "resnet18", "a checkpoint of stopgrad; name its run folder")
    config = {"state_dict": weights, "hyper_parameters": Planted()}
    refused(config, "resnet18", r"only running code .* torch\.save\(c\['state_dict'\], 'weights\.pt'\)")


def test_files_that_are_no_checkpoints(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((9, 9)))
    for name, says in (("a.npy", "a checkpoint ends in"), ("absent.pt", "no such file")):
        with pytest.raises(UsageError, match=says):
            load_foreign(tmp_path / name, "resnet18")
    for name in ("a.ckpt", "a.safetensors"):
        (tmp_path / name).write_bytes(b"no checkpoint at all" * 9)
        with pytest.raises(UsageError, match="or damaged"):
            load_foreign(tmp_path / name, "resnet18")


# ---- embedding a folder


@pytest.fixture
def folder(tmp_path, draw):
    root = tmp_path / "images"
    root.mkdir()
    for i in range(12):
        Image.fromarray(draw(SIZE, SIZE, i)).save(root / f"{i:02}.png")
    return root


def features(net, folder):
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        return net((x - mean[:, None, None]) / std[:, None, None])


def test_the_measures_are_of_the_encoders_features_of_the_images(tmp_path, folder, command):
    net = torchvision_resnet(1)
    torch.save({"state_dict": {**prefixed(net, "backbone."), **heads("projector")}}, tmp_path / "a.ckpt")
    flags = (tmp_path / "a.ckpt", "--model", "timm/resnet18", "--data", folder)
    found = command(*flags, "--json").json
    h = features(net, folder)
    for name, function in (("std", diagnostics.embedding_std), ("m_o", diagnostics.center_norm),
                           ("effective_rank", diagnostics.effective_rank)):  # fmt: skip
        assert found["measures"][name] == pytest.approx(float(function(h)), rel=1e-4), name
    source = found["source"]
    assert (source["matched_keys"], source["model_keys"], source["image_size"]) == (100, 100, 32)
    assert (source["rows"], source["dims"], source["layer"]) == (12, 512, "h")
    assert all(item["of"] == "h" for item in found["evidence"])
    page = command(*flags).out
    assert "100 of 100 keys matched under 'backbone.' (stable-pretraining, by name)" in page


def test_an_encoder_that_collapsed(tmp_path, folder):
    net = torchvision_resnet(1)
    nn.init.zeros_(net.layer4[1].bn2.weight)
    nn.init.zeros_(net.layer4[0].bn2.weight)
    nn.init.zeros_(net.layer4[0].downsample[1].weight)
    net.layer4[0].bn2.bias.data.abs_()
    torch.save(net.state_dict(), tmp_path / "a.pt")
    found = diagnose(tmp_path / "a.pt", model="resnet18", data=folder)
    assert found["verdict"] == "complete-collapse"


def test_weights_that_are_not_finite(tmp_path, folder):
    net = torchvision_resnet(1)
    net.conv1.weight.data[0] = torch.nan
    torch.save(net.state_dict(), tmp_path / "a.pt")
    assert diagnose(tmp_path / "a.pt", model="resnet18", data=folder)["verdict"] == "diverged"


def test_too_few_images_and_no_folder(tmp_path, folder):
    torch.save(torchvision_resnet(1).state_dict(), tmp_path / "a.pt")
    for path in sorted(folder.iterdir())[6:]:
        path.unlink()
    with pytest.raises(UsageError, match=r"--data .*images: 6 vectors, at least 7"):
        diagnose(tmp_path / "a.pt", model="resnet18", data=folder)
    with pytest.raises((UsageError, OSError)):
        diagnose(tmp_path / "a.pt", model="resnet18", data=tmp_path / "absent")
