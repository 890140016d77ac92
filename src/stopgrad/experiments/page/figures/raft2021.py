"""The pictures of Shi et al. 2020 (RAFT), Figs. 3-5 of the appendix among them, from our trials.

Theorem 4.1 and appendix I have no picture: a few numbers say it all.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page.figures import arms, traces
from stopgrad.experiments.page.figures.series import drawn, names
from stopgrad.experiments.statistics import summarise
from stopgrad.theory.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ALIGNMENT, UNIFORMITY, PROBE = "p.alignment", "z.uniformity", "linear_probe"
UNTRAINED = "untrained"
EPOCH = "epoch"
AXES = {
    "loss": "L<sub>BYOL</sub>, loss",
    ALIGNMENT: "L<sub>align</sub> of p (0: views agree)",
    UNIFORMITY: "L<sub>uniform</sub> of z (0: all alike)",
}
ARCS = 36
"""Of the circle, as for the trials' entropy (`stopgrad.experiments.exact.raft2021.circle`)."""


def circle(row: Row) -> "Figure":
    """Fig. 3: where the projections' directions lie, a ring an arm and choice of the origin.

    A bar's length is the share of an arc's images. Directions are relative to the principal components of
    each seed's own network, so that seeds are not averaged: the first is drawn.
    """
    kinds = (("angle", "entropy", "from the mean"), ("angle_origin", "entropy_origin", "from the origin"))
    named = names(row)
    figure = style.canvas(
        "Projections on the circle of their first two components",
        "The longer a bar, the more test images point there: an even ring is spread, a spike crowded "
        "(within: share of the fullest arc).<br>Below, directions are from the origin: a collapsed cloud is "
        "a spike only there. One seed is drawn; H is the evenness (1 even, 0 a single arc) of all.",
        panels=[_ring_heading(row, arm, *kind[1:]) for kind in kinds for arm in named],
        rows=len(kinds),
        height=240,
        gap=0.03,
        row_gap=0.16,
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    for r, (angle, *_) in enumerate(kinds, start=1):
        for c, arm in enumerate(named, start=1):
            angles = next((s[angle] for s in traces.of_arm(row, arm) if s.get(angle)), None)
            if angles is not None:
                _ring(figure, angles, arm, style.SERIES[c - 1], r, c)
    return figure


def _ring_heading(row: Row, arm: str, measure: str, of: str) -> str:
    found = traces.values(row, arm, measure)
    said = ""
    if found:
        summary = summarise(found)
        said = f": H = {summary.mean:.2f} ± {summary.std:.2f}"
    return f"{arm}<br><span style='font-size:11px'>{of}{said}</span>"


def _ring(figure: "Figure", angles: list[float], arm: str, colour: str, row: int, col: int) -> None:
    """Bars around a circle for the shares of its arcs, the longest as long as the panel allows."""
    counts, edges = np.histogram(angles, bins=ARCS, range=(-np.pi, np.pi))
    shares = counts / len(angles)
    panel = figure.get_subplot(row, col)
    number = sum(trace.type == "barpolar" for trace in figure.data) + 1
    name = "polar" if number == 1 else f"polar{number}"
    bare = {"showticklabels": False, "ticks": "", "showline": False, "showgrid": False}
    figure.update_layout(
        {
            name: {
                "domain": {"x": panel.xaxis.domain, "y": panel.yaxis.domain},
                "hole": 0.55,
                "radialaxis": {**bare, "range": [0, float(shares.max())]},
                "angularaxis": {**bare, "showline": True, "linecolor": style.GRID},
                "bgcolor": style.PAPER,
            }
        }
    )
    figure.add_barpolar(
        r=shares,
        theta=np.degrees((edges[:-1] + edges[1:]) / 2),
        width=[360 / ARCS] * ARCS,
        subplot=name,
        name=arm,
        legendgroup=arm,
        showlegend=not any(other.name == arm for other in figure.data),
        marker={"color": colour, "line": {"width": 0}},
        hovertemplate="%{r:.1%} of the images<extra>" + arm + "</extra>",
    )
    figure.add_annotation(
        text=f"{shares.max():.1%}",
        x=sum(panel.xaxis.domain) / 2,
        y=sum(panel.yaxis.domain) / 2,
        xref="paper",
        yref="paper",
        xanchor="center",
        yanchor="middle",
        showarrow=False,
    )


def predictors(row: Row) -> "Figure":
    """Fig. 4: BYOL's loss, uniformity, alignment and probe over training, by its predictor."""
    figure = style.canvas(
        "BYOL with four predictors, epoch by epoch",
        "The paper: with any learned predictor L<sub>uniform</sub> falls below that of untrained weights; "
        f"without one loss and<br>L<sub>align</sub> go to 0 and z crowds together. {traces.SEE}",
        panels=["training loss", "uniformity of z", "alignment of p", "linear evaluation"],
        rows=2,
        height=260,
    )
    colours = _colours(row)
    panels = (("loss", 1, 1), (UNIFORMITY, 1, 2), (ALIGNMENT, 2, 1), ("online_probe", 2, 2))
    for name, r, c in panels:
        traces.draw_arms(figure, row, name, colours, since=traces.TRAINED, row=r, col=c)
        style.axes(figure, EPOCH, AXES.get(name, "accuracy"), row=r, col=c)
        if name != "loss":
            _given(figure, row, PROBE if name == "online_probe" else name, colours, r, c)
    probes = {arm: traces.values(row, arm, PROBE) for arm in colours}
    traces.ends(figure, traces.OURS * _last_epoch(row), probes, colours, traces.AT_THE_END, row=2, col=2)
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(tickformat=".0%", row=2, col=2)
    return figure


def weights(row: Row) -> "Figure":
    """Fig. 5: alignment and uniformity over training, by beta, of BYOL' and RAFT."""
    groups = (("BYOL', none", "BYOL', no predictor"), ("RAFT, none", "RAFT, no predictor"),
              ("RAFT, linear", "RAFT, linear predictor"))  # fmt: skip
    figure = style.canvas(
        "Alignment and uniformity over training, by β",
        "The paper: without a predictor BYOL' lets the views agree whatever β is, while RAFT keeps them "
        f"apart;<br>with a linear one RAFT spreads z, which lowers L<sub>uniform</sub>. {traces.SEE}",
        panels=[heading for _, heading in groups] + [""] * len(groups),
        rows=2,
        height=270,
        row_gap=0.14,
        share_y=True,
    )
    for r, measure in enumerate((ALIGNMENT, UNIFORMITY), start=1):
        for c, (group, _) in enumerate(groups, start=1):
            colours = {arm: colour for arm, colour in _colours_of_beta(row).items() if arm.startswith(group)}
            traces.draw_arms(figure, row, measure, colours, since=traces.TRAINED, row=r, col=c)
            _given(figure, row, measure, colours, r, c)
            style.axes(figure, EPOCH if r == 2 else "", AXES[measure] if c == 1 else "", row=r, col=c)
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(showticklabels=True)
    figure.update_yaxes(type="log", row=1)
    return figure


def identity_start(row: Row) -> "Figure":
    """BYOL-LPI of Fig. 4: loss and uniformity of z when a linear predictor starts at the identity."""
    figure = style.canvas(
        "A linear predictor that starts at the identity",
        "The paper: z crowds together at once (L<sub>uniform</sub> rises from its value at the start, "
        f"dashed) and<br>spreads again after 10 to 20 of 300 epochs. {traces.SEE}",
        panels=["training loss", "uniformity of z"],
        height=300,
    )
    series = traces.of_arm(row, "all")
    name = "BYOL, identity start"
    loss = traces.collect([_counted(s, "loss") for s in series], "loss", since=traces.TRAINED)
    traces.draw(figure, loss, name, style.ORANGE)
    spread = traces.collect([_counted(s, UNIFORMITY) for s in series], UNIFORMITY, since=traces.TRAINED)
    traces.draw(figure, spread, name, style.ORANGE, col=2)
    starts = [s[UNIFORMITY][0] for s in series if s.get(UNIFORMITY) and s[UNIFORMITY][0] is not None]
    last = float(spread.x[-1]) if len(spread.x) else 1.0
    traces.level(figure, (0, last), starts, UNTRAINED, col=2)
    figure.update_xaxes(rangemode="tozero")
    style.axes(figure, EPOCH, AXES["loss"])
    style.axes(figure, EPOCH, AXES[UNIFORMITY], col=2)
    return figure


def _counted(series: Mapping[str, list[Any]], name: str) -> dict[str, list[Any]]:
    """A series of that trial with its epochs, from 0 on."""
    values = series.get(name, [])
    return {name: values, EPOCH: list(range(len(values)))}


def twins(row: Row) -> "Figure":
    """Theorem 5.1: what is left of L_RAFT - L_BYOL' + 4 beta, step by step."""
    figure = style.canvas(
        "RAFT from (θ, −W) beside BYOL' from (θ, W)",
        "With a predictor the two losses stay 4β apart, to rounding, in every step of Adam; without one "
        "there is no W to negate.<br>Steps without any difference have no point.",
        height=300,
    )
    for colour, arm in zip(style.SERIES, names(row), strict=False):
        for series in traces.of_arm(row, arm):
            gaps = series.get("loss_gap")
            if gaps:
                steps, above_zero = drawn(range(1, len(gaps) + 1), gaps, "y")
                figure.add_scatter(
                    x=steps,
                    y=above_zero,
                    name=arm,
                    mode="lines+markers",
                    line={"color": colour, "width": 1.5},
                    marker={"size": 5},
                )
    style.axes(figure, "step of Adam", "|L<sub>RAFT</sub> − L<sub>BYOL'</sub> + 4β|")
    figure.update_yaxes(type="log")
    return figure


def _colours(row: Row) -> dict[str, str]:
    """Of the trained arms."""
    trained = [arm for arm in names(row) if arm != UNTRAINED]
    return dict(zip(trained, style.SERIES, strict=False))


def _colours_of_beta(row: Row) -> dict[str, str]:
    """Of the trained arms: one colour for each beta, whatever the method."""
    betas = {arm: arm.rpartition("beta ")[2] for arm in names(row) if arm != UNTRAINED}
    order = sorted(set(betas.values()), key=float)
    return {arm: style.SERIES[order.index(beta)] for arm, beta in betas.items()}


def _given(figure: "Figure", shown: Row, measure: str, colours: dict[str, str], row: int, col: int) -> None:
    """What stands beside a panel's traces: the level of untrained weights, and the paper's numbers."""
    last = _last_epoch(shown)
    traces.level(figure, (0, last), traces.values(shown, UNTRAINED, measure), UNTRAINED, row=row, col=col)
    if figure.data:
        traces.paper(figure, traces.THEIRS * last, shown, measure, colours, row=row, col=col)


def _last_epoch(row: Row) -> float:
    """Of all finished trials; 1 without any."""
    epochs = [s[EPOCH][-1] for arm in row.records for s in traces.of_arm(row, arm) if s.get(EPOCH)]
    return float(max(epochs, default=1))


TABLE = partial(arms.draw, names=(PROBE, ALIGNMENT, UNIFORMITY))

FIGURES: dict[str, Callable[[Row], "Figure"]] = {
    "raft2021-tbl1": TABLE,
    "raft2021-tan": TABLE,
    "raft2021-tbl3": TABLE,
    "raft2021-thm5.1": twins,
    "raft2021-lpi": identity_start,
    "raft2021-fig3": circle,
    "raft2021-fig4": predictors,
    "raft2021-fig5": weights,
}
