"""Commands about the theory: the dynamics of the papers, solved."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stopgrad.cli.output import Json, progress, show

app = typer.Typer(help="The dynamics of learning without negative pairs: trajectories, fixed points, basins.")

AlphaP = Annotated[
    float, typer.Option("--alpha-p", help="Predictor's learning rate over the encoder's, > 0.")
]
Beta = Annotated[float, typer.Option("--beta", help="Rate at which the target follows, >= 0.")]
Eta = Annotated[float, typer.Option("--eta", help="Weight decay, >= 0.")]
Sigma2 = Annotated[float, typer.Option("--sigma2", help="Variance of the views about their image, >= 0.")]
P0 = Annotated[float, typer.Option("--p0", help="Predictor's eigenvalue at the start.")]
S0 = Annotated[float, typer.Option("--s0", help="Data's eigenvalue at the start, >= 0.")]
Tau0 = Annotated[float, typer.Option("--tau0", help="Target's share of the online network at the start.")]
FixedTau = Annotated[
    float | None, typer.Option("--fixed-tau", help="Hold tau at this value; 1 is SimSiam's target.")
]
TEnd = Annotated[float, typer.Option("--t-end", help="Time at the end, >= 0.")]
Tau = Annotated[float, typer.Option("--tau", help="Value at which tau is held.")]


@app.command()
def modes(
    p0: P0,
    s0: S0,
    tau0: Tau0 = 0.0,
    alpha_p: AlphaP = 1.0,
    beta: Beta = 0.4,
    eta: Eta = 0.04,
    sigma2: Sigma2 = 0.5,
    fixed_tau: FixedTau = None,
    t_end: TEnd = 50.0,
    points: Annotated[int, typer.Option("--points", help="Number of times to print, >= 2.")] = 101,
    as_json: Json = False,
) -> None:
    """The course of one eigenmode: p, s, tau and k over time (Tian et al. 2021, Eqs. 11-17)."""
    import numpy as np

    from stopgrad.errors import UsageError
    from stopgrad.theory.basins import collapses
    from stopgrad.theory.domain import reals
    from stopgrad.theory.modes import Modes

    if points < 2:
        raise UsageError(f"points: {points} is outside its domain [2, inf)")
    times = np.linspace(0.0, reals("t_end", t_end).item(), points)
    mode = Modes(
        p0=p0, s0=s0, tau0=tau0, alpha_p=alpha_p, beta=beta, eta=eta, sigma2=sigma2, fixed_tau=fixed_tau
    )
    course = mode.trajectory(times)
    collapsed = bool(collapses(mode.at(course.end)))
    arrays = {name: getattr(course, name) for name in ("t", "p", "s", "tau", "k")}
    result: dict[str, Any] = {name: values.tolist() for name, values in arrays.items()}
    result |= {"collapsed": collapsed, "invariant_drift": course.invariant_drift}
    lines = [f"{name:<17}{values[0]:12.6g} -> {values[-1]:12.6g}" for name, values in arrays.items()]
    lines += [
        f"{'smallest k':<17}{course.k.min():12.6g}",
        f"{'collapsed':<17}{'yes' if collapsed else 'no':>12}",
    ]
    show(result, as_json, [*lines, f"{'invariant drift':<17}{course.invariant_drift:12.1e}"], indent=None)


@app.command("fixed-points")
def fixed_points(
    tau: Tau, alpha_p: AlphaP = 1.0, eta: Eta = 0.04, sigma2: Sigma2 = 0.5, as_json: Json = False
) -> None:
    """Fixed points of p and s while tau is held, and whether they attract."""
    from stopgrad.theory import fixed_points as theory

    found = theory.fixed_points(alpha_p, eta, sigma2, tau)
    unavoidable = bool(theory.collapse_unavoidable(eta, sigma2, tau))
    result = {
        "points": [
            {"p": point.p, "s": point.s, "stable": point.stable, "eigenvalues": list(point.eigenvalues)}
            for point in found
        ],
        "collapse_unavoidable": unavoidable,
    }
    lines = [
        f"p {point.p:10.6g}  s {point.s:10.6g}  {'stable' if point.stable else 'unstable':<8}  "
        f"eigenvalues {point.eigenvalues[0]:.6g}, {point.eigenvalues[1]:.6g}"
        for point in found
    ]
    lines += [f"collapse unavoidable: {'yes' if unavoidable else 'no'}"]
    if eta == 0:
        lines += [f"with eta = 0 all of s = 0 and of p = {tau / (1 + sigma2):g} is fixed"]
    show(result, as_json, lines)


@app.command()
def basin(
    p0: P0,
    s0: S0,
    tau: Tau,
    alpha_p: AlphaP = 1.0,
    eta: Eta = 0.04,
    sigma2: Sigma2 = 0.5,
    as_json: Json = False,
) -> None:
    """Whether a start collapses while tau is held."""
    from stopgrad.theory.basins import collapses
    from stopgrad.theory.domain import reals
    from stopgrad.theory.modes import Modes

    held = reals("tau", tau)
    collapsed = bool(collapses(Modes(p0=p0, s0=s0, alpha_p=alpha_p, eta=eta, sigma2=sigma2, fixed_tau=held)))
    show({"collapses": collapsed}, as_json, [f"collapses: {'yes' if collapsed else 'no'}"])


@app.command()
def flow(
    config: Annotated[Path, typer.Option("--config", help="YAML file of matrices and hyper-parameters.")],
    as_json: Json = False,
) -> None:
    """Gradient flow of the two-layer linear model's matrices (Tian et al. 2021, section 2)."""
    from stopgrad.theory.flow import run_config

    result = run_config(config)
    lines = [
        f"{name:<18}{values[0]:12.6g} -> {values[-1]:12.6g}"
        for name, values in result.items()
        if isinstance(values, list) and isinstance(values[0], float)
    ]
    show(result, as_json, lines, indent=None)


@app.command()
def sweep(
    grid: Annotated[
        list[str], typer.Option("--grid", help="NAME=FROM:TO:COUNT[:log] or NAME=A,B,...; repeatable.")
    ],
    p0: Annotated[float | None, typer.Option("--p0")] = None,
    s0: Annotated[float | None, typer.Option("--s0")] = None,
    tau0: Annotated[float | None, typer.Option("--tau0")] = None,
    alpha_p: Annotated[float | None, typer.Option("--alpha-p")] = None,
    beta: Annotated[float | None, typer.Option("--beta")] = None,
    eta: Annotated[float | None, typer.Option("--eta")] = None,
    sigma2: Annotated[float | None, typer.Option("--sigma2")] = None,
    fixed_tau: FixedTau = None,
    t_end: Annotated[float | None, typer.Option("--t-end")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .npz.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Json = False,
) -> None:
    """Modes over a grid of hyper-parameters and starts: final p, s, tau, smallest k, collapse."""
    from math import prod

    from stopgrad.theory import sweep as theory

    axes = theory.axes(grid)
    given = {
        "p0": p0, "s0": s0, "tau0": tau0, "alpha_p": alpha_p, "beta": beta, "eta": eta, "sigma2": sigma2,
        "fixed_tau": fixed_tau, "t_end": t_end,
    }  # fmt: skip
    fixed = {name: value for name, value in given.items() if value is not None}
    if out is not None:
        theory.check_suffix(out)
    with progress("modes", prod(map(len, axes.values())), quiet) as tell:
        result = theory.sweep(axes, fixed, device=device, progress=tell)
    if out is not None:
        result.save(out)
    shape = " x ".join(f"{name} {len(values)}" for name, values in result.axes.items())
    lines = [
        f"grid       {shape}",
        f"collapsed  {100 * result.collapsed.mean():.1f} %",
        *([] if out is None else [f"arrays     {out}"]),
    ]
    show({**result.to_dict(), "out": None if out is None else str(out)}, as_json, lines, indent=None)


@app.command()
def predict(
    method: Annotated[str, typer.Option("--method", help="Name from `stopgrad methods`.")],
    l_d: Annotated[str, typer.Option("--l-d", help="Eigenvalues of what two views share, such as 1,0.5.")],
    l_s: Annotated[str, typer.Option("--l-s", help="Eigenvalues of one view, in the same order.")],
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of the encoder, > 0.")],
    alpha_p: AlphaP = 1.0,
    eta: Eta = 0.0,
    ema: Annotated[float | None, typer.Option("--ema", help="Momentum of the target.")] = None,
    distance: Annotated[
        str | None, typer.Option("--distance", help="In place of the method's own: euclidean.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of the run, >= 1.")] = None,
    as_json: Json = False,
) -> None:
    """What becomes of a method on given data: collapse, its cause, and the nearest setting without it."""
    from stopgrad.theory.predict import DataStatistics, run

    statistics = DataStatistics(_numbers("--l-d", l_d), _numbers("--l-s", l_s))
    result = run(method, statistics, lr=lr, alpha_p=alpha_p, eta=eta, ema=ema, distance=distance, steps=steps)
    if not result["closed_form"]:
        show(result, as_json, [f"no closed form: {result['reason']}"])
        return
    lines = [f"collapses  {'yes, by ' + str(result['cause']) if result['collapses'] else 'no'}"]
    lines += [f"remedy     {name} = {value}" for name, value in result["remedy"].items()]
    lines += [
        f"mode {mode['l_d']:g}/{mode['l_s']:g}: "
        f"{'survives' if mode['survives'] else 'dies'}, p {mode['p']:.4g}, s {mode['s']:.4g}"
        for mode in result["modes"]
    ]
    show(result, as_json, [*lines, *result["notes"]])


def _numbers(flag: str, text: str) -> list[float]:
    from stopgrad.errors import UsageError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{flag}: '{text}' is not a list of numbers such as 1,0.5") from error


@app.command()
def figure(
    name: Annotated[
        str | None, typer.Argument(help="Name of the picture; all are listed without it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .html, .png or .svg.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the picture: etas=[0,0.05]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a picture of the theory: the papers' figures, basin maps, phase diagrams."""
    from stopgrad.errors import UsageError
    from stopgrad.theory.figures import FIGURES, check_suffix, make_figure, write_figure

    if name is None:
        rows: list[dict[str, Any]] = [
            {"name": f.name, "title": f.title, "source": f.source, "parameters": f.parameters}
            for f in FIGURES.values()
        ]
        show({"figures": rows}, as_json, [f"{row['name']:<18}{row['title']}" for row in rows])
        return
    path = out or Path(f"{name}.html")
    check_suffix(path)
    parameters = {}
    for text in sets or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set: '{text}' is not NAME=VALUE")
        parameters[key] = _value(value)
    write_figure(make_figure(name, **parameters), path)
    show({"figure": name, "out": str(path)}, as_json, [str(path)])


def _value(text: str) -> Any:
    """A value as YAML reads it."""
    import yaml

    from stopgrad.errors import UsageError

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set: '{text}' is not a value in YAML") from error
