"""Brings the benchmarks' pages into the site, under benchmarks/, and points links to them there."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
ROLE = re.compile(r":(?:func|mod|class|attr|meth|data):(?=<code)")
LINK = re.compile(r"\]\((?:\.\./)+benchmarks/results/(\w+\.md)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add every page of `benchmarks/results` that the navigation names."""
    for path in sorted(RESULTS.glob("*.md")):
        if f"benchmarks/{path.name}" in repr(config["nav"]):
            files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links out of docs/ into links to the pages brought in."""
    here = posixpath.dirname(page.file.src_uri)
    return LINK.sub(lambda link: f"]({posixpath.relpath(f'benchmarks/{link[1]}', here or '.')})", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out the roles of the docstrings' references, which are another tool's."""
    return ROLE.sub("", html)
