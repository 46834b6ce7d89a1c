"""What the documents show is what the programs do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def python_blocks() -> list[Any]:
    """Give every block of Python in the documents, with a name that finds it again."""
    blocks = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            if match[1] == "python":
                blocks.append(pytest.param(match[2], id=f"{document.name}:{line}"))
    return blocks


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("block", python_blocks())
def test_code_block_runs(block: str, tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(block)
    done = run(program)
    # The package's logger notes the end of a worker that was killed, as the original's does.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("Process 'ForkPool")]
    assert (done.returncode, complaints) == (0, [])


def test_readme_quotes_the_quickstart() -> None:
    quoted = [match[2] for match in FENCE.finditer((ROOT / "README.md").read_text()) if match[1] == "python"]
    assert quoted == [(EXAMPLES / "quickstart.py").read_text()]


def test_quickstart_prints_what_the_readme_says() -> None:
    done = run(EXAMPLES / "quickstart.py")
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    readme = (ROOT / "README.md").read_text()
    assert [line for line in lines if f"`{line}`" not in readme] == []


def test_census_survives_its_accidents() -> None:
    """A few files are enough: the accidents are among them, and the program checks its own counts."""
    done = run(EXAMPLES / "census.py", "--limit", "40", "--no-rates")
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.partition("what happened to the four:")[2]
    for expected in ("TimeLimitExceeded", "was warned and cleaned up", "WorkerLostError"):
        assert expected in told


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = LINK.findall(document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name
)
def test_make_targets_exist(document: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z]+)\b(?= |$|`)", document.read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named - targets == set()
