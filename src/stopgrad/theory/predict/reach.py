"""Which methods, networks and rates the module's equations are about."""

from torch import nn

from stopgrad.method import Method, Supervised
from stopgrad.parts.distances import Euclidean
from stopgrad.parts.gradient import Exact, StraightThrough
from stopgrad.parts.pairing import CROSS_VIEW
from stopgrad.parts.predictors import Identity, Linear, Mlp, Spectral
from stopgrad.parts.target import Ema, Same
from stopgrad.theory.predict.answers import Beyond

# Settings of the predictors that theory reaches which may have any value
KNOWN: dict[type, tuple[str, ...]] = {
    Identity: (),
    Linear: ("symmetric", "init"),
    Spectral: ("eps", "eps_form", "exponent", "offset", "floor", "solver", "rho", "freq"),
}


def reached(method: Method | Supervised, network: nn.Module | None) -> Method:
    """The method, if it is one that the module's equations are about.

    Raises:
        Beyond: if it is not, or the network is not.
    """
    if isinstance(method, Supervised):
        raise Beyond("method: it learns from labels; the theory is of pairs of views")
    for name, wrong in (
        ("predictor", _beyond_predictor(method)),
        ("distance", _beyond_distance(method)),
        ("pairing", _beyond_pairing(method)),
        ("target", _beyond_target(method)),
        ("gradient", _beyond_gradient(method)),
        ("network", _beyond_network(network)),
    ):
        if wrong is not None:
            raise Beyond(f"{name}: {wrong}")
    return method


def _beyond_predictor(method: Method) -> str | None:
    predictor = method.predictor
    if isinstance(predictor, Mlp):
        return "an MLP is not linear, and its averages over the data depend on more than X and X'"
    known = next((fields for kind, fields in KNOWN.items() if type(predictor) is kind), None)
    if known is None:
        return f"'{predictor.kind}' is none whose modes are known; those of identity, linear and spectral are"
    for name, setting in type(predictor).model_fields.items():
        if name not in known and getattr(predictor, name) != setting.default:
            return f"{name} = {getattr(predictor, name)!r} is not in the equations of the modes"
    if isinstance(predictor, Spectral) and predictor.rho == "mean":
        return "rho = 'mean' lags further and further behind the network; the modes are of Fhat = E[z z^T]"
    return None


def _beyond_distance(method: Method) -> str | None:
    kind = method.distance.kind
    if isinstance(method.distance, Euclidean):
        return None
    if method.distance.normalises:
        return (
            f"'{kind}' divides by each sample's length, so that its averages do not close in "
            "X and X' (without weight decay it keeps tr(W W^T)); 'euclidean' is what the modes are of"
        )
    return f"'{kind}' is more than a square of a difference; 'euclidean' is what the modes are of"


def _beyond_pairing(method: Method) -> str | None:
    if set(method.pairing) != set(CROSS_VIEW) or len(method.pairing) != len(CROSS_VIEW):
        return f"the modes are of {' + '.join(map(str, CROSS_VIEW))}"
    return None


def _beyond_target(method: Method) -> str | None:
    if isinstance(method.target, Same):
        return None
    if not isinstance(method.target, Ema):
        return f"'{method.target.kind}' is neither the network nor a moving average of its weights"
    if method.target.init != "copy":
        return f"init = '{method.target.init}', and the modes are of a target that starts as the network"
    if method.target.centring is not None:
        return "centring takes the mean from the keys, which is not in the equations of the modes"
    if method.target.schedule != "constant":
        return "fixed points and basins are those of a constant moving average, not of a schedule"
    if method.target.tau == 1:
        return "tau = 1 never moves the target, and learns what a random network does"
    return None


def _beyond_gradient(method: Method) -> str | None:
    if isinstance(method.gradient, Exact) or isinstance(method.predictor, Identity):
        return None
    if not isinstance(method.gradient, StraightThrough):
        return f"the modes are of the exact gradient and of straight-through, not of '{method.gradient.kind}'"
    if not isinstance(method.predictor, Spectral):
        return "'straight-through' gives a learned predictor no gradient; it is of predictors in closed form"
    return None if method.stops_gradient else "'straight-through' is of targets with stop-gradient"


def _beyond_network(network: nn.Module | None) -> str | None:
    if network is None:
        return None
    leaves = [module for module in network.modules() if not list(module.children())]
    layers = [module for module in leaves if not isinstance(module, nn.Identity | nn.Flatten)]
    for layer in layers:
        if not isinstance(layer, nn.Linear):
            return f"it holds {type(layer).__name__}; the theory is of one linear layer without bias"
    if len(layers) != 1 or layers[0].bias is not None:
        return "the theory is of one linear layer without bias, not of several or of one with a bias"
    return None


def check_steps(lr: float, fastest: float) -> None:
    """Beyond lr * rate = 1 a step overshoots, and SGD is not near the flow; beyond 2 it diverges.

    Raises:
        Beyond: if the rate ``fastest`` is beyond it.
    """
    if lr * fastest > 1:
        raise Beyond(
            f"lr: {lr:g} is too large for the flow to stand for SGD, a mode moves at the rate {fastest:.3g}: "
            f"theory needs lr <= {1 / fastest:.3g}, or data scaled down"
        )
