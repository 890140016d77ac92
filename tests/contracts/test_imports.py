"""Imports point downward only, and what must be light is light."""

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import stopgrad

PACKAGE = Path(stopgrad.__file__).parent

# From the bottom up. A unit may import itself and what stands below its row; units of one row may not import
# each other. A new top-level module or folder needs a place here.
LAYERS = (
    ("errors", "frozen", "files", "citations", "diagnostics"),
    ("parts", "networks", "data"),
    ("method",),
    ("catalog", "evaluation", "exports", "losses", "lightning"),
    ("training", "report", "theory"),
    ("postmortem",),
    ("jobs",),
    ("experiments",),
    ("explorer",),
    ("cli",),
    ("__init__", "__main__"),
)
# Stricter than the rows
ONLY: dict[str, set[str]] = {"diagnostics": set(), "__main__": {"cli"}}
NEVER = {("training", "theory")}

LEVEL = {unit: level for level, row in enumerate(LAYERS) for unit in row}
UNITS = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def imported_units(source: str, module: tuple[str, ...]) -> set[str]:
    """Top-level units of ours that a module imports, anywhere in it: lazily or for type checkers too.

    ``module`` is its package's path, such as ("stopgrad", "data"), which relative imports start from.
    """
    names: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module[: len(module) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names |= {(*base, alias.name) for alias in node.names}
    own = [name[1:] for name in names if name[0] == "stopgrad"]
    return {name[0] if name and name[0] in UNITS | {"theory"} else "__init__" for name in own}


def edges() -> list[tuple[str, str, str]]:
    """(file, its unit, unit that it imports)."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        unit = inside.parts[0].removesuffix(".py")
        module = ("stopgrad", *inside.parent.parts)
        found += [(str(inside), unit, other) for other in imported_units(path.read_text(), module)]
    return found


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("import stopgrad.data.views", (), {"data"}),
        ("from stopgrad.jobs import embed", (), {"jobs"}),
        ("from stopgrad import diagnostics, jobs", (), {"diagnostics", "jobs"}),
        ("from stopgrad import pretrain", (), {"__init__"}),
        ("import stopgrad", (), {"__init__"}),
        ("def f():\n    from stopgrad.cli import app", (), {"cli"}),
        ("from . import views", ("stopgrad", "data"), {"data"}),
        ("from ..method import Method", ("stopgrad", "data"), {"method"}),
        ("from ...errors import require", ("stopgrad", "data", "sources"), {"errors"}),
        ("import torch\nfrom stopgraded import jobs", (), set()),
    ],
)
def test_the_reader_of_imports(source, module, expected):
    assert imported_units(source, module) == expected


def test_every_unit_has_a_layer():
    assert set(LEVEL) == UNITS


def test_the_picture_of_the_tree_shows_the_layers():
    page = (Path(__file__).parents[2] / "docs/architecture.md").read_text()
    lines = page.partition("```text\n")[2].partition("```")[0].splitlines()
    assert [set(line.split()) for line in reversed(lines)] == [set(row) for row in LAYERS[:-1]]


def test_imports_point_downward():
    found = edges()
    assert len(found) > 50
    wrong = [
        f"{file} imports {other}"
        for file, unit, other in found
        if other != unit
        and (
            LEVEL.get(other, 0) >= LEVEL[unit]
            or other not in ONLY.get(unit, {other})
            or (unit, other) in NEVER
        )
    ]
    assert not wrong


def test_what_makes_numbers_imports_no_pictures():
    """The store's digest of the source of an exact trial leaves theory/figures out."""
    making = [*(PACKAGE / "experiments/exact").rglob("*.py"), *(PACKAGE / "theory").rglob("*.py")]
    drawing = PACKAGE / "theory/figures"
    assert not [
        str(path)
        for path in making
        if not path.is_relative_to(drawing) and "theory.figures" in path.read_text()
    ]


def python(script: str) -> str:
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize(
    "action",
    [
        "import stopgrad",
        "import stopgrad; stopgrad.__version__, dir(stopgrad)",
        "import contextlib, io, stopgrad.cli; sys.argv = ['stopgrad', '--help']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    stopgrad.cli.main()\n"
        "assert 'pretrain' in out.getvalue()",
        "import stopgrad.citations, stopgrad.files",
    ],
)
def test_what_is_light_imports_nothing_heavy(action):
    heavy = ("torch", "numpy", "pydantic", "scipy", "sklearn", "yaml", "lightning_fabric")
    loaded = python(f"import sys\n{action}\nprint(sorted(set(sys.modules) & set({heavy!r})))")
    assert loaded == "[]"


def test_help_is_quick():
    """Processor time, which other work on the machine does not stretch; the best of three."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run([sys.executable, "-m", "stopgrad", "--help"], capture_output=True, check=True)
        assert b"pretrain" in run.stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_diagnostics_need_torch_alone():
    loaded = python(
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "from stopgrad import diagnostics\n"
        "z = torch.randn(16, 4)\n"
        "diagnostics.embedding_std(z), diagnostics.effective_rank(z), diagnostics.spectrum(z, 4)\n"
        "new = {name for name in set(sys.modules) - before if not name.startswith('torch.')}\n"
        "print(sorted(n for n in new if n.partition('.')[0] not in sys.stdlib_module_names))"
    )
    names = ast.literal_eval(loaded)
    assert "stopgrad.diagnostics" in names
    assert [n for n in names if n != "stopgrad" and not n.startswith("stopgrad.diagnostics")] == []


def test_the_explorers_page_is_there_before_the_theory():
    loaded = python(
        "import sys\n"
        "from pathlib import Path\n"
        "from starlette.testclient import TestClient\n"
        "from stopgrad.explorer import app\n"
        "client = TestClient(app.create_app([], Path('none')), base_url='http://127.0.0.1')\n"
        "heavy = lambda: set(sys.modules) & {'torch', 'scipy', 'sklearn', 'plotly', 'lightning_fabric'}\n"
        "sent = []\n"
        "app._ready = lambda _: sent.append(heavy())\n"
        "for path in ('/', '/api/views', '/page.css', '/api/views/mode'):\n"
        "    assert client.get(path).status_code == 200, path\n"
        "print(sent, heavy())"
    )
    assert loaded == "[set()] set()"  # the imports begin once the page is sent


def test_the_first_charts_of_a_run_are_there_before_torch(tmp_path):
    rows = [{"kind": "step", "step": i, "epoch": i, "loss": -0.1 * i, "lr": 0.1} for i in range(3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = python(
        "import sys\n"
        "from pathlib import Path\n"
        "from starlette.testclient import TestClient\n"
        "from stopgrad.explorer import app\n"
        f"client = TestClient(app.create_app([Path({str(tmp_path)!r})], Path('none')),"
        " base_url='http://127.0.0.1')\n"
        f"for path in ('/runs/{tmp_path.name}', '/api/runs/{tmp_path.name}/outline'):\n"
        "    assert client.get(path).status_code == 200, path\n"
        "print(set(sys.modules) & {'torch', 'scipy', 'sklearn', 'pandas', 'lightning_fabric'})"
    )
    assert loaded in ("{'pandas'}", "set()")


def test_a_chart_waits_for_what_another_thread_imports(tmp_path):
    """Plotly cannot draw while pandas is half there."""
    slow = "import time\ntime.sleep(1)\nclass Series: pass\nclass Index: pass\nclass DataFrame: pass\n"
    (tmp_path / "pandas.py").write_text(slow)
    run = tmp_path / "run"
    run.mkdir()
    rows = [{"kind": "step", "step": i, "epoch": i, "loss": -0.1 * i, "lr": 0.1} for i in range(3)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status = python(
        "import sys, threading, time\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathlib import Path\n"
        "from starlette.testclient import TestClient\n"
        "from stopgrad.explorer import app\n"
        f"client = TestClient(app.create_app([Path({str(run)!r})], Path('none')), base_url='http://127.0.0.1')\n"
        "threading.Thread(target=lambda: __import__('pandas')).start()\n"
        "while 'pandas' not in sys.modules:\n"
        "    time.sleep(0.01)\n"
        "print(client.get('/api/runs/run/outline').status_code)"
    )
    assert status == "200"
