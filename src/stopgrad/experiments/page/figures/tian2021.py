"""Figures 2 to 10 of Tian et al. 2021 (DirectPred), and its theorems' curves, from the ledger's records."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import measures
from stopgrad.experiments.page.figures.series import (
    TIME,
    colours,
    courses,
    drawn,
    logarithmic,
    names,
    records,
    series,
)
from stopgrad.experiments.schema import Arm
from stopgrad.experiments.statistics import summarise
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SIZE = "‖W(t)‖ / ‖W(0)‖"
LOST = 0.01
"""Of |w| at the end, below which a start of Fig. 10 has collapsed."""


def figure2(row: Row) -> "Figure":
    """Fig. 2: spectra of predictor and correlation, their alignment, and W_p's symmetry, trained."""
    figure = style.canvas(
        "What training makes of a free linear predictor",
        "Every line is a seed. Leading eigenvalues of both grow, the rest goes to 0; eigenvectors of F are "
        "turned by W_p as the cosine has it (1: not at all); both shares fall where W_p becomes symmetric "
        "and positive semi-definite.",
        panels=[
            "eigenvalues of W<sub>p</sub>",
            "eigenvalues of F",
            "alignment",
            "asymmetric and negative share of W<sub>p</sub>",
        ],
        rows=2,
        height=280,
        gap=0.12,
    )
    curves = {
        (1, 1): ("p", "p, of W<sub>p</sub>"),
        (1, 2): ("s", "s, of F = E[z z<sup>T</sup>]"),
        (2, 1): ("cosine", "|cos(u, W<sub>p</sub> u)|"),
    }
    for arm, colour in colours(row).items():
        for record in records(row, arm):
            for (line, col), (name, _) in curves.items():
                values = record.result.series.get(name, [])
                place = list(range(1, len(values) + 1))
                if values:
                    log = "y" if name == "s" else ""
                    points = drawn(place, values, log)
                    style.line(figure, *points, arm, colour, row=line, col=col, width=1)
            _shares(figure, arm, record.result.numbers, colour)
    for (line, col), (_, axis) in curves.items():
        style.axes(figure, "j, in descending order", axis, row=line, col=col)
    figure.update_yaxes(type="log", row=1, col=2)
    style.axes(figure, "", "share (0: none)", row=2, col=2, x_range=(-0.2, 1.2))
    figure.update_xaxes(tickvals=[0, 1], ticktext=["start", "end"], row=2, col=2)
    return figure


def _shares(figure: "Figure", arm: str, numbers: dict[str, float], colour: str) -> None:
    for name, dash in (("asymmetry", "solid"), ("negative", "dot")):
        ends = [numbers.get(f"{name}_{when}") for when in ("start", "end")]
        if None not in ends:
            entry = arm if name == "asymmetry" else f"{arm}, negative"
            style.line(figure, [0, 1], ends, entry, colour, row=2, col=2, dash=dash, width=1)


def figure3(row: Row) -> "Figure":
    """Fig. 3: which starts (p, s) collapse, for three weight decays."""
    figure = style.canvas(
        "Where starts go: η 0, 0.01 and 1",
        "Red starts end at s = 0, blue ones at a feature. Above the parabola s = p² nothing collapses "
        "without decay; a little decay keeps most of it, and much leaves collapse alone.",
        panels=[name.replace("eta", "η =") for name in names(row)],
        share_y=True,
        height=340,
        gap=0.03,
    )
    for col, arm in enumerate(names(row), start=1):
        p, s, lost = (series(row, arm, name) for name in ("p", "s", "collapsed"))
        x, y = np.unique(np.array(p, float)), np.unique(np.array(s, float))
        if not len(x) or len(x) * len(y) != len(lost):
            continue
        style.regions(figure, x, y, np.array(lost, bool).reshape(len(y), len(x)), col=col)
        edge = np.linspace(x[0], x[-1], 101)
        inside = np.where(edge**2 <= y[-1], edge**2, np.nan)
        style.line(figure, edge, inside, "s = p²", style.INK, col=col, dash="dash", width=1.5)
        style.axes(
            figure,
            style.SYMBOLS["p"],
            style.SYMBOLS["s"] if col == 1 else "",
            col=col,
            x_range=(x[0], x[-1]),
            y_range=(0, y[-1]),
        )
    return figure


def figure4(row: Row) -> "Figure":
    """Fig. 4: the fixed points of p on the parabola at half the threshold of the weight decay."""
    figure = style.canvas(
        "Fixed points of p on the parabola",
        "At half the threshold of η, with the share τ of the target and the views' variance σ². 0 and p₊ "
        "attract, p₋ parts their basins; starts 2 % to both sides of p₋ ended so.",
        height=240,
    )
    found = series(row, "all", "tau_sigma2_threshold_near_far")
    for place, (_, _, _, near, far) in enumerate(found):
        style.line(figure, [0, far], [place, place], "from 0 to p₊", style.GREY, width=1)
        for p, stable in ((0.0, True), (near, False), (far, True)):
            style.point(figure, p, place, stable)
    style.axes(figure, style.SYMBOLS["p"], "")
    labels = [f"τ {tau:g}, σ² {sigma2:g}<br>η below {limit:.3g}" for tau, sigma2, limit, _, _ in found]
    figure.update_yaxes(
        tickvals=list(range(len(found))),
        ticktext=labels,
        range=[len(found) - 0.5, -0.5],
        automargin=True,
        ticks="",
    )
    return figure


def figure5(row: Row) -> "Figure":
    """Fig. 5: p, tau and k over time for weight decays and rates of the target."""
    axes = {
        "p": style.SYMBOLS["p"],
        "tau": style.SYMBOLS["tau"],
        "k": "k, least eigenvalue of K for the mode",
    }
    return courses(
        row,
        axes,
        "What weight decay and a slow target do to k",
        "Eigenspaces align where k > 0. More η lifts k and lowers the p that is reached, or loses it; a "
        "smaller β lifts k and delays p.",
    )


def figure6(row: Row) -> "Figure":
    """Fig. 6: the probe against the predictor's relative learning rate, without EMA."""
    figure = style.canvas(
        "A faster symmetric predictor, no EMA",
        "Means with standard deviations over the seeds, and every seed as a dot. In the paper the symmetric "
        "predictor fails at α_p = 1 and works beyond.",
        height=320,
    )
    of = {arm.name: arm for arm in row.experiment.arms}
    curves = {
        "symmetric, decay of the theory": [n for n in of if n.startswith("alpha_p") and "group" not in n],
        "symmetric, decay of a group": [n for n in of if n.startswith("alpha_p") and "group" in n],
        "free": [n for n in of if n.startswith("free")],
    }
    for (name, arms), colour in zip(curves.items(), style.SERIES, strict=False):
        _against_rate(figure, row, name, [of[arm] for arm in arms], colour)
    style.axes(figure, style.SYMBOLS["alpha_p"], "linear probe, accuracy")
    figure.update_xaxes(type="log", tickvals=[1, 2, 5, 10])
    figure.update_yaxes(tickformat=".0%")
    return figure


def _against_rate(figure: "Figure", row: Row, name: str, arms: list[Arm], colour: str) -> None:
    rate, mean, std, said, dots = [], [], [], [], []
    for arm in arms:
        values = [v["linear_probe"] for v in row.numbers.get(arm.name, {}).values() if "linear_probe" in v]
        own = arm.changes.get("optimizer", {}).get("predictor", {}).get("lr_scale", 1.0)
        if values:
            found = summarise(values)
            rate.append(own)
            mean.append(found.mean)
            std.append(found.std)
            said.append(f"{arm.name}: {measures.spread('linear_probe', found)}")
            dots += [(own, value) for value in values]
    if not rate:
        return
    figure.add_scatter(
        x=rate,
        y=mean,
        error_y={"array": std, "thickness": 1.5},
        mode="lines+markers",
        name=name,
        legendgroup=name,
        line={"color": colour},
        marker={"size": 8},
        hovertext=said,
        hoverinfo="text",
    )
    figure.add_scatter(
        x=[x for x, _ in dots],
        y=[y for _, y in dots],
        mode="markers",
        legendgroup=name,
        showlegend=False,
        name=f"{name}, a seed",
        marker={"size": 5, "color": colour, "opacity": 0.5},
        hoverinfo="skip",
    )


def figure7(row: Row) -> "Figure":
    """Fig. 7: the cosine of the target's weights and the network's."""
    etas = next((found for arm in names(row) if (found := series(row, arm, "eta"))), [])
    figure = style.canvas(
        "W<sub>a</sub> stays a multiple of W",
        "Mean cosine of the target's weights and the network's over random starts, from W_a = 0. The paper "
        "reports about 0.9 for the slowest target and much decay.",
        panels=[f"η = {eta:g}" for eta in etas] or [""],
        share_y=True,
        gap=0.03,
    )
    for arm, colour in colours(row).items():
        for col, mean in enumerate(series(row, arm, "mean")[: len(etas)], start=1):
            shown = arm.replace("gamma_a", "γ<sub>a</sub>")
            style.line(figure, *drawn(series(row, arm, "t"), mean, "x"), shown, colour, col=col)
    for col in range(1, max(1, len(etas)) + 1):
        style.axes(figure, TIME, "cos(W<sub>a</sub>, W)" if col == 1 else "", col=col)
    logarithmic(figure, "x")
    return figure


def figure8(row: Row) -> "Figure":
    """Fig. 8: norms of the symmetric and the antisymmetric part of W_p."""
    figure = style.canvas(
        "The antisymmetric part of the predictor vanishes",
        "Solid the norm of the symmetric part A of W_p, dotted that of the antisymmetric part B. B vanishes "
        "for every η and τ; A only for much decay and a small τ.",
        panels=[name.replace("eta", "η =") for name in names(row)],
        share_y=True,
        gap=0.03,
    )
    for col, arm in enumerate(names(row), start=1):
        t, taus = series(row, arm, "t"), series(row, arm, "tau")
        for part, dash in (("symmetric", "solid"), ("antisymmetric", "dot")):
            for tau, norm, colour in zip(taus, series(row, arm, part), style.SERIES, strict=False):
                entry = f"{'A' if dash == 'solid' else 'B'}, τ = {tau:g}"
                style.line(figure, *drawn(t, norm, "xy"), entry, colour, col=col, dash=dash)
        style.axes(figure, TIME, "norm" if col == 1 else "", col=col)
    logarithmic(figure, "xy")
    return figure


def figure9(row: Row) -> "Figure":
    """Fig. 9: the norm of the commutator of F and W_p."""
    panels = list(dict.fromkeys(name.partition(", ")[0] for name in names(row)))
    figure = style.canvas(
        "The commutator can shoot up",
        "‖F W_p − W_p F‖ over its value at the start, from eigenspaces that nearly agree. With little decay "
        "and a large τ it grows many times over before it falls.",
        panels=[panel.replace("eta", "η =") for panel in panels],
        share_y=True,
        gap=0.03,
    )
    taus = list(dict.fromkeys(name.partition(", ")[2] for name in names(row)))
    for arm in names(row):
        panel, _, tau = arm.partition(", ")
        points = drawn(series(row, arm, "t"), series(row, arm, "norm"), "x")
        if points[0]:
            col, colour = panels.index(panel) + 1, style.SERIES[taus.index(tau)]
            style.line(figure, *points, tau.replace("tau", "τ ="), colour, col=col)
    for col in range(1, len(panels) + 1):
        style.axes(figure, TIME, "‖[F, W<sub>p</sub>]‖, over the start's" if col == 1 else "", col=col)
    logarithmic(figure, "x")
    return figure


def figure10(row: Row) -> "Figure":
    """Fig. 10: the starts of a network of one weight each, by where they end."""
    figure = style.canvas(
        "One weight each: w, w<sub>p</sub> and w<sub>a</sub>",
        "Every mark is a start, in the colour of its end. With a predictor the origin repels, but for tied "
        "weights that start below 0; without one all is lost.",
        panels=names(row),
        gap=0.1,
    )
    others = {"target held": "w<sub>p</sub>(0)", "tied weights": "w<sub>a</sub>(0)"}
    for col, arm in enumerate(names(row), start=1):
        starts = [series(row, arm, name) for name in ("w", "other", "w_end")]
        for entry, colour, symbol, is_it in (
            ("ends at w > 0", style.BLUE, "circle", lambda w: w > LOST),
            ("ends at w < 0", style.PURPLE, "square", lambda w: w < -LOST),
            ("ends at 0", style.RED, "x", lambda w: abs(w) <= LOST),
        ):
            found = [(w, other) for w, other, end in zip(*starts, strict=False) if is_it(end)]
            _marks(figure, entry, colour, symbol, found, col)
        style.axes(figure, "w(0)", others.get(arm, "w<sub>a</sub>(0)"), col=col)
    return figure


def _marks(
    figure: "Figure", entry: str, colour: str, symbol: str, points: list[tuple[float, float]], col: int
) -> None:
    if points:
        style.scatter(
            figure,
            entry,
            1,
            col,
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="markers",
            marker={"color": colour, "size": 7, "symbol": symbol},
        )


def _modes_learned(row: Row) -> "Figure":
    """Appendix D: the eigenvalues of the modes, and how much of the learned rows lies in the largest."""
    figure = style.canvas(
        "What is learned of data that are not isotropic",
        "Left the eigenvalues of Σ_d Σ_s⁻¹. Right, for every start, the cosine of the learned rows' span and "
        "that of the modes with the largest: 1 where they are one.",
        panels=["modes", "starts"],
        height=260,
        gap=0.12,
    )
    for col, name in ((1, "rho"), (2, "overlap")):
        for arm, colour in colours(row).items():
            values = series(row, arm, name)
            points = [(float(place), value) for place, value in enumerate(values, start=1)]
            _marks(figure, arm, colour, "circle", points, col)
        figure.update_xaxes(dtick=1, row=1, col=col)
    style.axes(figure, "mode", "ρ, eigenvalue", col=1)
    style.axes(figure, "start", "cosine", col=2)
    return figure


FIGURES: "dict[str, Callable[[Row], Figure]]" = {
    "tian2021-lemma1": lambda row: courses(
        row,
        {"twin_error": "relative distance of W, SGD from flow"},
        "Gradient flow as the limit of SGD",
        "The distance falls in proportion to the learning rate.",
        x=("lr", "learning rate"),
        log="xy",
    ),
    "tian2021-thm2": lambda row: courses(
        row,
        {"norm_W": SIZE},
        "Without stop-gradient the encoder vanishes",
        "It stays only where views share a direction without noise and nothing decays.",
        log="y",
    ),
    "tian2021-nopred": lambda row: courses(
        row,
        {"norm_W": SIZE},
        "Without a predictor the encoder vanishes",
        "With both views noisy, with stop-gradient as well as without, and sooner without.",
        log="y",
    ),
    "tian2021-thm3": lambda row: courses(
        row,
        {"norm": "‖[F, W<sub>p</sub>]‖, over the start's", "lowest_K": "least eigenvalue of K"},
        "Eigenspaces of predictor and data align",
        "The norm may grow while K has an eigenvalue below 0, and falls after.",
    ),
    "tian2021-decoupled": lambda row: courses(
        row,
        {"p": style.SYMBOLS["p"]},
        "Modes run on their own",
        "Eigenvalues of W_p in the matrices' flow, a line each; those of independent modes lie on them.",
    ),
    "tian2021-integral": lambda row: courses(
        row,
        {name: style.SYMBOLS[name] for name in ("p", "s", "tau")},
        "A mode on its way",
        "With c = 0 it stays on the parabola s = p² / α_p, from elsewhere it draws near at the rate 2η.",
    ),
    "tian2021-fig2": figure2,
    "tian2021-fig3": figure3,
    "tian2021-fig4": figure4,
    "tian2021-fig5": figure5,
    "tian2021-fig6": figure6,
    "tian2021-fig7": figure7,
    "tian2021-fig8": figure8,
    "tian2021-fig9": figure9,
    "tian2021-fig10": figure10,
    "tian2021-appd": _modes_learned,
}
