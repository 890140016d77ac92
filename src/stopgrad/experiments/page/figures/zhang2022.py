"""The pictures of Zhang et al. 2022 (SimSiam analysis), Figs. 3-8 among them, from our trials."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page.figures import arms, traces
from stopgrad.experiments.page.figures.series import colours, names
from stopgrad.experiments.statistics import summarise
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PROBE = "linear_probe"
NO_BN = ", no final BN"
ENDS = (("", "z ends in batch normalisation"), (NO_BN, "z ends without it"))
EPOCH = "epoch"
FOLLOWED = {
    "online_probe": ("online probe", "accuracy"),
    "knn": ("kNN", "accuracy"),
    "z.std": ("spread of z", "std of z × √D (1 isotropic)"),
    "p.std": ("spread of p", "std of p × √D (1 isotropic)"),
}
"""Series of trainings: heading and axis."""
PHASES = (("SimSiam", 5), ("collapsing loss", 6), ("de-correlation alone", 6))
"""Of Fig. 5b, with their epochs (`stopgrad.experiments.exact.zhang2022.figure5b`)."""
PEAK = (0.1, 0.2)
"""Temperatures between which Fig. 5c of the paper has the largest cosine."""
COVARIANCE = "covariance of z"


def training(row: Row, followed: Sequence[str], title: str, see: str) -> "Figure":
    """Series over the epochs of a training, a panel each, the final linear probe beside the online one."""
    figure = style.canvas(
        title, f"{see}<br>{traces.SEE}", panels=[FOLLOWED[name][0] for name in followed], height=300
    )
    coloured = colours(row)
    for col, name in enumerate(followed, start=1):
        drawn = [traces.collect(traces.of_arm(row, arm), name, since=traces.TRAINED) for arm in coloured]
        for trace, (arm, colour) in zip(drawn, coloured.items(), strict=True):
            traces.draw(figure, trace, arm, colour, col=col)
        if name == "online_probe":
            last = max((trace.x[-1] for trace in drawn if len(trace.x)), default=1)
            probes = {arm: traces.values(row, arm, PROBE) for arm in coloured}
            traces.ends(figure, traces.OURS * last, probes, coloured, traces.AT_THE_END, col=col)
            if figure.data:
                traces.paper(figure, traces.THEIRS * last, row, PROBE, coloured, col=col)
        style.axes(figure, EPOCH, FOLLOWED[name][1], col=col)
        if FOLLOWED[name][1] == "accuracy":
            figure.update_yaxes(tickformat=".0%", row=1, col=col)
    figure.update_xaxes(rangemode="tozero")
    return figure


def pushed(row: Row) -> "Figure":
    """Fig. 4: m_o and m_r when the gradient is one component of the dummy term alone."""
    figure = style.canvas(
        "Pushing the centre, pushing the residual",
        "The paper: a push along the centre o raises m<sub>o</sub> and lowers m<sub>r</sub>, one along the "
        f"residual r does the opposite, a random one little.<br>{traces.SEE}",
        panels=[heading for _, heading in ENDS] + ["", ""],
        rows=2,
        height=240,
        row_gap=0.12,
        share_y=True,
    )
    for c, (end, _) in enumerate(ENDS, start=1):
        for r, name in enumerate(("m_o", "m_r"), start=1):
            traces.draw_arms(figure, row, name, _ending(row, end), along=None, row=r, col=c)
            axis = {"m_o": "m<sub>o</sub> = ‖o‖", "m_r": "m<sub>r</sub>"}[name] if c == 1 else ""
            style.axes(figure, "step" if r == 2 else "", axis, row=r, col=c)
    figure.update_yaxes(showticklabels=True)
    return figure


def crossings(row: Row) -> "Figure":
    """Fig. 5a: cosines of o_e less a share of the centre with that centre, over the share."""
    figure = style.canvas(
        "How much of the centre is in o<sub>e</sub>",
        "A curve is at 0 where the share η of the centre that o<sub>e</sub> holds is taken out of it. The "
        "paper: η<sub>p</sub> = −0.5 for SimSiam, η<sub>z</sub> = 0.2 for its mirror image (dotted). "
        f"<br>{traces.SEE} Filled squares: our mean shares.",
        panels=names(row),
        height=320,
        share_y=True,
    )
    curves = (
        ("simsiam", "p", "SimSiam: o<sub>z</sub> − o<sub>p</sub> and o<sub>p</sub>", style.BLUE),
        ("mirror", "z", "mirror: o<sub>p</sub> − o<sub>z</sub> and o<sub>z</sub>", style.ORANGE),
    )
    theirs = row.experiment.paper_numbers.get("SimSiam", {})
    for col, arm in enumerate(names(row), start=1):
        for name, node, entry, colour in curves:
            share = f"eta_{node}"
            trace = traces.collect(traces.of_arm(row, arm), name, "eta")
            traces.draw(figure, trace, entry, colour, col=col)
            if len(trace.x) and share in theirs:
                entry = f"the paper's η<sub>{node}</sub>"
                style.line(figure, [theirs[share]] * 2, [-1, 1], entry, colour, col=col, dash="dot")
            _crossing(figure, traces.values(row, arm, share), f"our η<sub>{node}</sub>", colour, col)
        style.axes(figure, "η, share of the centre", "cosine" if col == 1 else "", col=col)
    figure.update_yaxes(showticklabels=True)
    return figure


def recovery(row: Row) -> "Figure":
    """Fig. 5b: m_r of every step: SimSiam, then a collapsing loss, then de-correlation alone."""
    figure = style.canvas(
        "De-correlation after a collapse",
        "The paper: the collapsing loss takes m<sub>r</sub> down, de-correlation alone brings it back at "
        f"once. That of l2-normalised vectors is satisfied by a collapse.<br>{traces.SEE}",
        panels=[heading for _, heading in ENDS],
        height=320,
        share_y=True,
    )
    epochs = sum(length for _, length in PHASES)
    for col, (end, _) in enumerate(ENDS, start=1):
        ending = _ending(row, end)
        traces.draw_arms(figure, row, "m_r", ending, along=None, col=col)
        steps = max((len(s.get("m_r", [])) for arm in ending for s in traces.of_arm(row, arm)), default=0)
        begin = 0.0
        for name, length in PHASES if steps else ():
            figure.add_annotation(
                text=name, x=begin, y=1.06, xanchor="left", showarrow=False, row=1, col=col,
                font={"size": 11, "color": style.QUIET},
            )  # fmt: skip
            begin += steps * length / epochs
            if begin < steps:
                style.line(figure, [begin] * 2, [0, 1], "next loss", style.GREY, col=col, dash="dot", width=1)
        style.axes(figure, "step", "m<sub>r</sub>" if col == 1 else "", col=col, y_range=(0, 1.12))
    figure.update_yaxes(showticklabels=True)
    return figure


def temperatures(row: Row) -> "Figure":
    """Fig. 5c: cosines of InfoNCE's r_e and o_e with the de-correlating gradient."""
    figure = style.canvas(
        "InfoNCE's residual gradient and de-correlation",
        "The paper: r<sub>e</sub> points where de-correlation does over a wide range, most of all at τ "
        f"around 0.1 or 0.2 (dotted).<br>{traces.SEE}",
        height=340,
    )
    for name, entry, colour in (
        ("r_e", "r<sub>e</sub>", style.BLUE),
        ("o_e", "o<sub>e</sub>", style.ORANGE),
    ):
        trace = traces.collect(traces.of_arm(row, "all"), name, "temperature")
        traces.draw(figure, trace, entry, colour)
    if figure.data:
        for peak in PEAK:
            style.line(figure, [peak] * 2, [0, 1], "the paper's largest", style.GREY, dash="dot", width=1.5)
    style.axes(figure, "τ, temperature", "cosine with the de-correlating gradient")
    figure.update_xaxes(type="log", tickvals=[0.01, 0.1, 1, 10])
    return figure


def covariances(row: Row) -> "Figure":
    """Fig. 6: the covariance of z's dimensions over training."""
    figure = style.canvas(
        "Covariance over training",
        "The paper: SimSiam and InfoNCE lower it after the first epochs, InfoNCE without r<sub>e</sub> keeps "
        f"it high.<br>{traces.SEE}",
        height=340,
    )
    _covariance(figure, row, 1)
    return figure


def temperature_of_training(row: Row) -> "Figure":
    """Fig. 8: accuracy and covariance by InfoNCE's temperature."""
    figure = style.canvas(
        "Temperature of InfoNCE: accuracy and covariance",
        "The paper: the higher the temperature, the more covariance is left in z and the lower the accuracy. "
        f"Dots are seeds, squares means with their deviation.<br>{traces.SEE}",
        panels=["linear probe", "covariance at the end", "covariance over training"],
        height=320,
    )
    for col, (measure, axis) in enumerate(((PROBE, "accuracy"), ("covariance", COVARIANCE)), start=1):
        for arm, colour in colours(row).items():
            found = traces.values(row, arm, measure)
            temperature = _temperature(row, arm)
            traces.seeds(figure, temperature, found, arm, colour, col=col)
            traces.ends(figure, temperature, {arm: found}, {arm: colour}, "mean of the seeds", col=col)
        style.axes(figure, "τ, temperature", axis, col=col)
        figure.update_xaxes(type="log", tickvals=[0.1, 0.2, 0.5, 1, 5], row=1, col=col)
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    _covariance(figure, row, 3)
    return figure


def _covariance(figure: "Figure", row: Row, col: int) -> None:
    """A panel with the covariance over the epochs of every arm."""
    traces.draw_arms(figure, row, "covariance", colours(row), col=col)
    style.axes(figure, EPOCH, COVARIANCE, col=col)


def _crossing(figure: "Figure", found: list[float], name: str, colour: str, col: int) -> None:
    """The mean of the seeds' shares, where the curve is at 0."""
    if found:
        summary = summarise(found)
        figure.add_scatter(
            x=[summary.mean],
            y=[0.0],
            name=name,
            showlegend=False,
            mode="markers",
            marker={"symbol": "square", "size": 9, "color": colour},
            error_x={"array": [summary.std], "thickness": 1.2, "width": 3, "color": colour},
            row=1,
            col=col,
        )


def _ending(row: Row, end: str) -> dict[str, str]:
    """Arms whose projector ends in batch normalisation, or without -> their colours."""
    ending = [arm for arm in names(row) if arm.endswith(NO_BN) == bool(end)]
    return dict(zip(ending, style.SERIES, strict=False))


def _temperature(row: Row, arm: str) -> float:
    return float(next(a.changes["temperature"] for a in row.experiment.arms if a.name == arm))


FIGURES: dict[str, Callable[[Row], "Figure"]] = {
    "zhang2022-tbl2": partial(
        training,
        followed=("online_probe", "z.std", "p.std"),
        title="SimSiam against mirror, naive and symmetric architectures",
        see="The paper: all but SimSiam collapse (spread to 0). With the predictor on both paths the loss "
        "compares p, not z.",
    ),
    "zhang2022-fig3": partial(
        training,
        followed=("online_probe", "knn", "z.std"),
        title="A trainable inverse predictor on the target's path",
        see="The paper: with a learned inverse SimSiam still trains, slightly below SimSiam itself.",
    ),
    "zhang2022-fig4": pushed,
    "zhang2022-tbl3": partial(arms.draw, names=(PROBE, "z.m_o", "z.std")),
    "zhang2022-tbl4": partial(arms.draw, names=(PROBE, "z.std", "p.std")),
    "zhang2022-fig5a": crossings,
    "zhang2022-fig5b": recovery,
    "zhang2022-fig5c": temperatures,
    "zhang2022-fig6": covariances,
    "zhang2022-fig8": temperature_of_training,
    "zhang2022-tbl6": partial(arms.draw, names=("cosine", "m_o")),
    "zhang2022-bn": partial(arms.draw, names=(PROBE, "z.std", "z.effective_rank")),
    "zhang2022-infonce": partial(arms.draw, names=(PROBE, "z.m_o", "z.effective_rank")),
}
