"""What the ledger's pages say, as plain text and tables of it; `markdown` and `html` only dress it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import measures
from stopgrad.experiments.rules import All, Outcome, Rule, Under
from stopgrad.experiments.schema import canonical
from stopgrad.experiments.statistics import Summary, summarise
from stopgrad.experiments.store import Record

COMMAND = "python -m stopgrad.experiments.page --write"
NAMES = {
    "tian2021": "Tian et al. 2021 (DirectPred)",
    "halvagal2023": "Halvagal et al. 2023 (IsoLoss)",
    "raft2021": "Shi et al. 2020 (RAFT)",
    "zhang2022": "Zhang et al. 2022 (SimSiam's analysis)",
}
"""Of the papers, in the order in which they stand."""
OUTCOMES: tuple[str, ...] = get_args(Outcome)
NOT_RUN = "not finished"
NONE = "–"
CONTROL = "untrained encoder (control)"
COMMIT = 12
"""Digits of a commit."""
PREDICTED = {"collapsed": "z.collapsed", "rank": "z.effective_rank", "epochs": "epoch of arrival"}
"""Of theory's numbers (`stopgrad.experiments.exact.counterpart`) those shown, and what each foretells."""
MOST_COLUMNS = 5
"""Of measures: a table of more that has fewer arms than measures is turned on its side."""


@dataclass(frozen=True)
class Table:
    """Cells of plain text; of each row the first names it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Part:
    """A part of a rule: how deep it stands, what it says, and what became of it.

    Attributes:
        depth: 0 for the whole rule.
        says: the rule in words; of one that is made of others what joins them.
        outcome: None while there is no verdict, or where others say it.
        figures: that decided.
    """

    depth: int
    says: str
    outcome: str | None = None
    figures: str = ""


def by_paper(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Paper -> its rows, in the order of `NAMES`; papers without rows are left out."""
    found = {paper: [row for row in rows if row.experiment.paper == paper] for paper in NAMES}
    return {paper: own for paper, own in found.items() if own}


def records(rows: Iterable[Row]) -> list[Record]:
    """The finished trials that the rows show, each once, in their order."""
    found: dict[str, Record] = {}
    for row in rows:
        for record in [*_own(row), *row.control.values()]:
            found.setdefault(canonical(record.spec), record)
    return list(found.values())


def facts(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """Where the numbers come from: name and value."""
    found = records(rows)
    seeds = sorted({seed for row in rows for arm in row.records.values() for seed in arm if seed is not None})
    days = sorted(record.finished for record in found)
    missing = len(frozenset().union(*(row.missing for row in rows)))
    return (
        ("trials", f"{len(found)}" + (f", {missing} are missing" if missing else "")),
        ("seeds of training", ", ".join(map(str, seeds)) or NONE),
        ("time", f"{sum(record.seconds for record in found) / 3600:.3g} hours of a core"),
        ("finished", f"{days[0]} to {days[-1]}" if days else NONE),
        ("commit", _counted(record.commit and _short(record.commit) for record in found)),
        ("environment", _counted(_environment(record) for record in found)),
    )


def outcome(row: Row) -> str:
    """The verdict, or that there is none yet."""
    return NOT_RUN if row.verdict is None else row.verdict.outcome


def why(row: Row) -> str:
    """The figures that decided, or how many trials there are and what they say so far."""
    if row.verdict is not None:
        return row.verdict.why
    there = len(_own(row))
    said = f"{there} of {there + len(row.missing)} trials are there"
    if row.so_far is None:
        return said
    return f"{said}; on the seeds that all arms have: {row.so_far.outcome} ({row.so_far.why})"


def seeds(row: Row) -> str:
    """How many seeds its arms were run with."""
    found = {seed for arm in row.records.values() for seed in arm if seed is not None}
    return str(len(found)) if found or row.experiment.seeds else NONE


def counts(rows: Sequence[Row]) -> Table:
    """How many claims of each paper came out how."""
    shown = [o for o in (*OUTCOMES, NOT_RUN) if o != NOT_RUN or any(outcome(row) == o for row in rows)]

    def line(name: str, own: Sequence[Row]) -> tuple[str, ...]:
        found = Counter(map(outcome, own))
        return (name, *(str(found[o]) for o in shown), str(len(own)))

    lines = [line(NAMES[paper], own) for paper, own in by_paper(rows).items()]
    return Table(("paper", *shown, "all"), (*lines, line("all", rows)))


def claims(rows: Sequence[Row]) -> Table:
    """A line a claim; its first cell is the id, which the dress makes a link."""
    lines = [(r.experiment.id, r.experiment.title, outcome(r), why(r), seeds(r)) for r in rows]
    return Table(("id", "claim", "verdict", "what decided", "seeds"), tuple(lines))


def arms(row: Row) -> Table:
    """Arms against measures, ours beside the paper's, the control below; or the other way round.

    The measures are those that the rule reads, those that the paper gives, and the probe, the spread and the
    rank of z of whatever was trained; then what theory says of the linear counterpart, where there is one:
    collapse, rank, and the epoch when its modes arrive. Values of fewer seeds than the arm has say so.
    """
    shown = _shown(row)
    theirs = row.experiment.paper_numbers
    columns: list[tuple[str, ...]] = [("arm", *(arm.name for arm in row.experiment.arms))]
    controls = [record.result.numbers for record in row.control.values()]
    if controls:
        columns[0] += (CONTROL,)
    for name in shown:
        ours = [_cell(name, list(row.numbers.get(a.name, {}).values())) for a in row.experiment.arms]
        bottom = [_cell(name, controls)] if controls else []
        columns.append((measures.label(name), *ours, *bottom))
        if any(name in numbers for numbers in theirs.values()):
            given = [theirs.get(arm.name, {}).get(name) for arm in row.experiment.arms]
            said = [NONE if value is None else _given(name, value) for value in given]
            columns.append((f"paper: {measures.label(name)}", *said, *([NONE] if controls else [])))
    columns += _foretold(row, bool(controls))
    if len(shown) > MOST_COLUMNS and len(columns[0]) - 1 < len(columns) - 1:
        columns[0] = ("measure", *columns[0][1:])
        return Table(columns[0], tuple(columns[1:]))
    lines = list(zip(*columns, strict=True))
    return Table(lines[0], tuple(lines[1:]))


def _foretold(row: Row, control: bool) -> list[tuple[str, ...]]:
    """Columns of what theory says of the arms; none where it has no word on any."""
    said = {
        arm: [record.result.numbers for record in of_seed.values() if record.result.numbers.get("reached")]
        for arm, of_seed in row.predicted.items()
    }
    if not any(said.values()):
        return []
    columns = []
    for name, measure in PREDICTED.items():
        renamed = {arm: [{measure: n[name]} for n in own if name in n] for arm, own in said.items()}
        cells = [_cell(measure, renamed.get(arm.name, [])) for arm in row.experiment.arms]
        columns.append((f"theory: {measures.label(measure)}", *cells, *([NONE] if control else [])))
    return columns


def cost(row: Row) -> str:
    """What it took, and what was expected."""
    expected = f"expected {_minutes(60 * row.experiment.cost_minutes)}"
    memory = f"{row.experiment.memory_gib:g} GiB a trial"
    there = len(_own(row))
    peaks = [record.peak_gib for record in _own(row) if record.peak_gib is not None]
    peak = f", at most {max(peaks):.2g} GiB a process" if peaks else ""
    trials = f"{there} trial{'' if there == 1 else 's'}"
    return f"{trials}, {_minutes(row.seconds)} of a core{peak} ({expected}, {memory})"


def parts(row: Row) -> list[Part]:
    """The rule, part by part, each with what became of it."""
    verdict = row.verdict.to_dict() if row.verdict else None
    return list(_parts(row.experiment.rule, verdict, 0))


def _parts(
    rule: Rule, verdict: Mapping[str, Any] | None, depth: int, said: Sequence[Rule] = ()
) -> Iterator[Part]:
    """Parts of a rule; of those in ``said``, which stand above, only how many there are."""
    statistics = {} if verdict is None else verdict["statistics"]
    reached = None if verdict is None else verdict["outcome"]
    if isinstance(rule, All):
        yield Part(depth, "all of", reached)
        own = statistics.get("parts", [None] * len(rule.rules))
        new = [pair for pair in zip(rule.rules, own, strict=True) if pair[0] not in said]
        for part, found in new:
            yield from _parts(part, found, depth + 1)
        if len(new) < len(own):
            yield Part(depth + 1, f"{len(own) - len(new)} of the parts above")
    elif isinstance(rule, Under):
        above = rule.general.rules if isinstance(rule.general, All) else ()
        yield Part(depth, "the claim as it stands")
        yield from _parts(rule.general, statistics.get("general"), depth + 1)
        yield Part(depth, f"under the condition '{rule.condition}'")
        yield from _parts(rule.conditional, statistics.get("conditional"), depth + 1, above)
    else:
        yield Part(depth, rule.describe(), reached, "" if verdict is None else _decided(verdict))


def _decided(verdict: Mapping[str, Any]) -> str:
    """The figures that decided a rule of one part, as its kind names them; without any, the reason."""
    match verdict["statistics"]:
        case {"n": 1, "mean": mean}:
            return f"{mean:.4g}"
        case {"n": n, "mean": mean, "low": low, "high": high}:
            return f"{mean:.4g} (95 % interval {low:.4g} to {high:.4g}, n = {n})"
        case {"n": _, "smallest": low, "largest": high}:
            return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        case {"trials": n, "mean": mean, "smallest": low, "largest": high}:
            return f"{mean:.4g} ({low:.4g} to {high:.4g}, {n} trials)"
        case {"n": n, "yes": yes}:
            return f"{yes} of {n} seeds"
    return str(verdict["why"])


def _shown(row: Row) -> list[str]:
    """Measures of the table: those that no record has are left out, but for the paper's."""
    theirs = [name for numbers in row.experiment.paper_numbers.values() for name in numbers]
    read = measures.read_by(row.experiment.rule)
    there = {name for arm in row.numbers.values() for numbers in arm.values() for name in numbers}
    names = dict.fromkeys([*measures.ALWAYS_SHOWN, *read, *theirs, "diverged"])
    return [name for name in names if name in theirs or (name in there and not _tame(row, name))]


def _tame(row: Row, name: str) -> bool:
    """Whether no trial diverged, which then needs no column."""
    return name == "diverged" and not any(
        numbers.get(name) for arm in row.numbers.values() for numbers in arm.values()
    )


def _cell(name: str, found: Sequence[Mapping[str, float]]) -> str:
    values = [numbers[name] for numbers in found if name in numbers]
    if not values:
        return NONE
    said = measures.spread(name, summarise(values))
    return said if len(values) == len(found) else f"{said} (n = {len(values)})"


def _given(name: str, value: float) -> str:
    """A number of the paper: of an event "yes" or "no"."""
    if measures.is_event(name) and value in (0, 1):
        return "yes" if value else "no"
    return measures.spread(name, Summary(1, value, 0.0)) if not measures.is_event(name) else f"{value:.3g}"


def _own(row: Row) -> list[Record]:
    return [record for of_seed in row.records.values() for record in of_seed.values()]


def _short(commit: str) -> str:
    """A commit as short as it is told apart, with what says that files had changed since."""
    return commit[:COMMIT] + (" and changes" if commit.endswith("+") else "")


def _environment(record: Record) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(record.environment.items()))


def _counted(texts: Iterable[str | None]) -> str:
    """Each text with the number of trials that have it, if there are several."""
    found = Counter(text or "none" for text in texts)
    if len(found) <= 1:
        return next(iter(found), NONE)
    return "; ".join(f"{text} ({count} trials)" for text, count in sorted(found.items()))


def _minutes(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 60 else f"{seconds / 60:.3g} min"
