import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stopgrad import exports
from stopgrad.errors import UsageError
from stopgrad.exports import FILES, export_encoder, load_exported
from stopgrad.networks.encoders import EncoderSettings, build_encoder

INFO = {"mean": [0.4], "std": [0.2], "method": "byol"}


def trained(name="convnet-s", channels=1, image_size=16, stem="auto"):
    """An encoder in train mode whose batch norms have seen images: eval and train mode differ."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name=name, stem=stem), channels, image_size)
    with torch.no_grad():
        for _ in range(3):
            encoder(2.0 * torch.randn(16, channels, image_size, image_size) + 0.5)
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return trained()


@pytest.fixture(scope="module")
def images():
    return torch.randn(7, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def features(encoder, images):
    with torch.no_grad():
        answer = encoder.eval()(images)
    encoder.train()
    return answer


def test_safetensors_gives_the_encoder_back(encoder, images, features, tmp_path):
    result = export_encoder(encoder, tmp_path, "safetensors", INFO)
    assert {file.name for file in tmp_path.iterdir()} == {"encoder.safetensors", "encoder.json"}
    assert result.max_difference <= 1e-5
    for path in (tmp_path, tmp_path / "encoder.safetensors"):
        loaded, info = load_exported(path)
        assert not loaded.training
        torch.testing.assert_close(loaded(images), features, rtol=0, atol=1e-6)
    assert (loaded.width, loaded.channels, loaded.image_size) == (128, 1, 16)
    assert info["mean"] == [0.4]
    assert info["std"] == [0.2]
    assert info["method"] == "byol"


def test_a_cifar_stem_survives(tmp_path):
    encoder = trained("resnet18", channels=3, image_size=32)
    assert encoder.settings.stem == "cifar"
    export_encoder(encoder, tmp_path, "safetensors", {"mean": [0.5] * 3, "std": [0.5] * 3})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(load_exported(tmp_path)[0](images), encoder.eval()(images))


def test_torch_program_takes_any_batch(encoder, images, features, tmp_path):
    result = export_encoder(encoder, tmp_path, "torch", INFO)
    assert result.max_difference <= 1e-5
    module = torch.export.load(result.model).module()
    for count in (1, 3, 7):
        torch.testing.assert_close(module(images[:count]), features[:count], rtol=0, atol=1e-5)


def test_onnx_takes_any_batch(encoder, images, features, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    result = export_encoder(encoder, tmp_path, "onnx", INFO)
    assert capsys.readouterr().out == ""  # stdout belongs to --json
    session = onnxruntime.InferenceSession(result.model)
    for count in (1, 7):
        (answer,) = session.run(["features"], {"images": images[:count].numpy()})
        np.testing.assert_allclose(answer, features[:count].numpy(), rtol=0, atol=1e-5)


def test_timm_loads_by_the_call_in_the_description(tmp_path):
    timm = pytest.importorskip("timm")
    encoder = trained("timm/resnet10t", channels=3, image_size=32)
    result = export_encoder(encoder, tmp_path, "timm", {"mean": [0.5] * 3, "std": [0.5] * 3})
    call = json.loads(result.description.read_text())["create_model"]
    model = timm.create_model(call["name"], **call["arguments"]).eval()
    model.load_state_dict(load_file(result.model), strict=True)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), encoder.eval()(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("convnet-s", 16), ("resnet18", 32)])
def test_timm_cannot_hold_what_it_cannot_build(name, size, tmp_path):
    encoder = build_encoder(EncoderSettings(name=name), 1, size)
    with pytest.raises(UsageError, match="safetensors, torch, onnx"):
        export_encoder(encoder, tmp_path, "timm", INFO)
    assert not list(tmp_path.iterdir())


def test_the_encoder_and_the_random_state_are_left_alone(encoder, tmp_path):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    state = torch.get_rng_state()
    export_encoder(encoder, tmp_path, "safetensors", INFO)
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def _slightly_off(encoder, path):
    state = encoder.body.state_dict()
    save_file({**state, "11.bias": state["11.bias"] + 1e-4}, path)


def test_a_failed_round_trip_writes_nothing_and_keeps_the_old_export(encoder, tmp_path, monkeypatch):
    export_encoder(encoder, tmp_path, "safetensors", INFO)
    old = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setitem(exports._WRITERS, "safetensors", _slightly_off)
    with pytest.raises(RuntimeError, match="differ"):
        export_encoder(encoder, tmp_path, "safetensors", INFO)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == old


def test_the_fresh_process_must_not_import_stopgrad(encoder, tmp_path, monkeypatch):
    leak = exports._READERS["torch"] + "\nimport stopgrad\n"
    monkeypatch.setitem(exports._READERS, "torch", leak)
    with pytest.raises(RuntimeError, match="AssertionError"):
        export_encoder(encoder, tmp_path, "torch", INFO)
    assert not list(tmp_path.iterdir())


def test_bad_input_is_named_in_one_line(encoder, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        export_encoder(encoder, tmp_path, "onx", INFO)
    with pytest.raises(UsageError, match="mean"):
        export_encoder(encoder, tmp_path, "torch", {"mean": [0.1, 0.2], "std": [1.0]})
    broken = trained()
    torch.nn.init.constant_(broken.body[0].weight, torch.nan)
    with pytest.raises(UsageError, match="NaN"):
        export_encoder(broken, tmp_path, "safetensors", INFO)


def test_damaged_exports_are_named_in_one_line(encoder, tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_exported(tmp_path)
    weights, text = (tmp_path / name for name in FILES["safetensors"])
    export_encoder(encoder, tmp_path, "safetensors", INFO)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(UsageError, match="not the weights of convnet-s"):
        load_exported(tmp_path)
    weights.write_bytes(whole)
    info = json.loads(text.read_text())
    text.write_text(json.dumps({**info, "image_size": 32}))
    with pytest.raises(UsageError, match="not the weights of convnet-s"):
        load_exported(tmp_path)
    text.write_text("[]")
    with pytest.raises(UsageError, match="not the description") as error:
        load_exported(tmp_path)
    assert "\n" not in str(error.value)
