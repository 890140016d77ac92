"""Defaults of a run: those that go with a data set, and those that a method was published with.

A recipe is a nested dictionary in the shape of `RunSettings`. For the axes that have kinds (target,
predictor) it holds the defaults of each kind under the kind's name; under ``methods``, what a method of the
catalogue needs besides. ``recipe: auto`` is the data set's, ``recipe: paper`` the method's.

The papers scale the learning rate by batch / 256; ours are the products, for `OptimizerSettings.lr` is used
as it is.
"""

from typing import Any

from stopgrad.catalog import lookup
from stopgrad.errors import unknown

# Learning rate chosen on the validation images for BYOL and SimSiam; the others were not tuned.
DIGITS: dict[str, Any] = {
    "views": "digits",
    "view_size": 16,
    "encoder": {"name": "convnet-s"},
    "projector": {"hidden": (256,), "out": 64},
    "predictor": {"mlp": {"hidden": 256}},
    "target": {"ema": {"tau": 0.99}},
    "optimizer": {"name": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 4e-4},
    "schedule": {"warmup_epochs": 2},
    "epochs": 24,
    "batch_size": 64,
    "precision": "fp32",  # convolutions this small gain nothing from half precision
    "methods": {"wmse": {"projector": {"out": 16}}},  # a batch whitens fewer dimensions than it has images
}

DIGITS_SMOKE: dict[str, Any] = {
    **DIGITS,
    "data": {"limit": 2048},
    "target": {"ema": {"tau": 0.98}},
    "optimizer": {**DIGITS["optimizer"], "lr": 0.3},
    "schedule": {"warmup_epochs": 1},
    "epochs": 8,
}

# ResNet-18 with the CIFAR stem. Optimiser after Halvagal et al. 2023 (SGD, momentum 0.9, weight decay 4e-4,
# 10 warm-up epochs, EMA rising to 1) at half their batch and half their rate of 0.1.
CIFAR: dict[str, Any] = {
    "views": "simclr-32",
    "view_size": 32,
    "encoder": {"name": "resnet18"},
    "projector": {"hidden": (512,), "out": 128},
    "predictor": {"mlp": {"hidden": 512}},
    "target": {"ema": {"tau": 0.996, "schedule": "cosine"}},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 4e-4},
    "schedule": {"warmup_epochs": 10},
    "epochs": 200,
    "batch_size": 256,
    "evaluation": {"knn_k": 200, "knn_temperature": 0.1, "control": False},
}

# Tian et al. 2021 on STL-10: SGD 0.03, momentum 0.9, weight decay 4e-4, batch 128, EMA 0.996.
STL: dict[str, Any] = {
    **CIFAR,
    "views": "simclr-96",
    "view_size": 96,
    "target": {"ema": {"tau": 0.996}},
    "optimizer": {"name": "sgd", "lr": 0.03, "momentum": 0.9, "weight_decay": 4e-4},
    "epochs": 100,
    "batch_size": 128,
}

TINY_IMAGENET: dict[str, Any] = {**CIFAR, "views": "simclr-96", "view_size": 64}

FOLDER: dict[str, Any] = {**STL, "evaluation": {"control": False}}

# Tian et al. 2021, section 3: STL-10. The projector's batch norm learns no scale, as in their code.
DIRECTPRED: dict[str, Any] = {
    **STL,
    "projector": {"hidden": (512,), "out": 128, "hidden_affine": False},
}

# Halvagal et al. 2023, appendix D: CIFAR-10 and -100. They do not give the epochs; ours are those of CIFAR.
ISOLOSS: dict[str, Any] = {
    **CIFAR,
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 4e-4},
    "batch_size": 512,
}

# Shi et al. 2020, appendix C: CIFAR-10 enlarged to 96 pixels, Adam, an EMA rate of 4e-3.
RAFT: dict[str, Any] = {
    **CIFAR,
    "views": "simclr-96",
    "view_size": 96,
    "projector": {"hidden": (512,), "out": 128},
    "predictor": {"mlp": {"hidden": 512, "bn": False}},
    "target": {"ema": {"tau": 0.996}},
    "optimizer": {"name": "adamw", "lr": 3e-4, "weight_decay": 0.0},
    "schedule": {"name": "constant", "warmup_epochs": 0},
    "epochs": 300,
    "batch_size": 128,
}

# Zhang et al. 2022, appendix A.1: CIFAR-100, the predictor's rate constant.
ZHANG: dict[str, Any] = {
    **CIFAR,
    "projector": {"hidden": (2048, 2048), "out": 2048},
    "predictor": {"mlp": {"hidden": 512}, "two-fc": {"hidden": 512}},
    "optimizer": {
        "name": "sgd", "lr": 0.5, "momentum": 0.9, "weight_decay": 1e-5, "predictor": {"constant_lr": True},
    },
    "schedule": {"warmup_epochs": 10},
    "epochs": 1000,
    "batch_size": 256,
}  # fmt: skip

IMAGENET: dict[str, Any] = {
    "views": "byol-224",
    "view_size": 224,
    "encoder": {"name": "resnet50"},
    "schedule": {"warmup_epochs": 10},
    "evaluation": {"knn_k": 200, "knn_temperature": 0.1, "control": False},
}

# Chen and He 2021, section 4: ImageNet, 100 epochs, the predictor's rate constant.
SIMSIAM: dict[str, Any] = {
    **IMAGENET,
    "views": "simclr-96",
    "projector": {"hidden": (2048, 2048), "out": 2048},
    "predictor": {"mlp": {"hidden": 512}},
    "optimizer": {
        "name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "predictor": {"constant_lr": True},
    },
    "schedule": {"warmup_epochs": 0},
    "epochs": 100,
    "batch_size": 512,
}  # fmt: skip

# Grill et al. 2020, section 3.3: ImageNet. Biases and normalisation neither decay nor adapt, as in their
# code.
BYOL: dict[str, Any] = {
    **IMAGENET,
    "projector": {"hidden": (4096,), "out": 256},
    "predictor": {"mlp": {"hidden": 4096}},
    "target": {"ema": {"tau": 0.996, "schedule": "cosine"}},
    "optimizer": {"name": "lars", "lr": 3.2, "momentum": 0.9, "weight_decay": 1.5e-6, "decay_all": False},
    "epochs": 1000,
    "batch_size": 4096,
}

# Chen et al. 2020, section 2.2: ImageNet, LARS, temperature 0.5 at this batch.
SIMCLR: dict[str, Any] = {
    **IMAGENET,
    "views": "simclr-96",
    "projector": {"hidden": (2048,), "out": 128},
    "optimizer": {"name": "lars", "lr": 4.8, "momentum": 0.9, "weight_decay": 1e-6, "decay_all": False},
    "epochs": 100,
    "batch_size": 4096,
}

# Zbontar et al. 2021, section 2.2: ImageNet. In their code biases have a rate of their own; ours share one.
BARLOW: dict[str, Any] = {
    **IMAGENET,
    "projector": {"hidden": (8192, 8192), "out": 8192},
    "optimizer": {"name": "lars", "lr": 1.6, "momentum": 0.9, "weight_decay": 1.5e-6, "decay_all": False},
    "epochs": 1000,
    "batch_size": 2048,
}

# Bardes et al. 2022, section 4.2: ImageNet.
VICREG: dict[str, Any] = {**BARLOW, "optimizer": {**BARLOW["optimizer"], "weight_decay": 1e-6}}

# Ermolov et al. 2021, section 4: CIFAR-10, Adam with L2 decay; ours is decoupled, at 1e-6 no different.
WMSE: dict[str, Any] = {
    **CIFAR,
    "projector": {"hidden": (1024,), "out": 64},
    "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 1e-6},
    "epochs": 1000,
    "batch_size": 512,
    "methods": {"wmse": {"distance": {"slice": 128}}},
}

RECIPES: dict[str, dict[str, Any]] = {
    "digits": DIGITS,
    "digits-smoke": DIGITS_SMOKE,
    "cifar": CIFAR,
    "stl10": STL,
    "tiny-imagenet": TINY_IMAGENET,
    "folder": FOLDER,
    "directpred": DIRECTPRED,
    "isoloss": ISOLOSS,
    "raft": RAFT,
    "zhang2022": ZHANG,
    "simsiam": SIMSIAM,
    "byol": BYOL,
    "simclr": SIMCLR,
    "barlow-twins": BARLOW,
    "vicreg": VICREG,
    "wmse": WMSE,
}

OF_DATA: dict[str, str] = {
    "digits": "digits",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "stl10": "stl10",
    "tiny-imagenet": "tiny-imagenet",
}


def recipe(name: str, data: str, method: str) -> dict[str, Any]:
    """The recipe called ``name``, for a method.

    "paper" is the recipe that the method was published with; "auto" the one that goes with the data set,
    "folder" for any that is not known, as also where a paper has none.

    Raises:
        UsageError: for an unknown name or method.
    """
    if name == "paper":
        name = lookup(method).recipe
    if name == "auto":
        name = OF_DATA.get(data, "folder")
    if name not in RECIPES:
        raise unknown("recipe", name, ["auto", "paper", *RECIPES])
    return RECIPES[name]
