"""Defaults that go with a data set: what a run uses when neither the user nor the method says otherwise.

A recipe is a nested dictionary in the shape of `RunSettings`. For the axes that have kinds (target,
predictor) it holds the defaults of each kind under the kind's name.
"""

from typing import Any

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

RECIPES: dict[str, dict[str, Any]] = {
    "digits": DIGITS,
    "digits-smoke": DIGITS_SMOKE,
    "cifar": CIFAR,
    "stl10": STL,
    "tiny-imagenet": TINY_IMAGENET,
    "folder": FOLDER,
}

OF_DATA: dict[str, str] = {
    "digits": "digits",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "stl10": "stl10",
    "tiny-imagenet": "tiny-imagenet",
}


def recipe(name: str, data: str) -> dict[str, Any]:
    """The recipe called ``name``; "auto" is the one that goes with the data set, "folder" for any other.

    Raises:
        UsageError: for an unknown name.
    """
    if name == "auto":
        name = OF_DATA.get(data, "folder")
    if name not in RECIPES:
        raise unknown("recipe", name, ["auto", *RECIPES])
    return RECIPES[name]
