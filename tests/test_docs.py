"""README, `.env.example`, packaging and code say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from scripts.docs import DOCUMENTS, FILES, ROOT, rewritten
from tests.sweep.causes import CALL, CAUSES
from trio_ai_stream.cli import commands
from trio_ai_stream.settings import SETTINGS

README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_repeats_is_that_of_the_code(document: str) -> None:
    """Settings, endings, lifecycle and counts are made from the code."""
    text = (ROOT / document).read_text()
    assert rewritten(document) == text, "run `uv run python -m scripts.docs`"


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_made_of_the_code_is_that_of_the_code(file: str) -> None:
    """`.env.example` and the schema of the log are made from the code as a whole."""
    made = FILES[file]()
    assert (ROOT / file).read_text() == made, "run `uv run python -m scripts.docs`"


def test_env_example_has_every_setting() -> None:
    """Each with its default, commented out."""
    text = (ROOT / ".env.example").read_text()
    assert all(f"# {name}=" in text for name in SETTINGS)


def test_the_python_floor_is_one() -> None:
    """The README names the Python that the package asks for."""
    floor = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"Python {floor} or newer" in README


def test_the_classifiers_name_the_pythons_that_the_gate_runs() -> None:
    """No other version is promised, in any of the packages."""
    run = (ROOT / ".ci" / "run").read_text()
    (newer,) = re.findall(r"for version in (.*); do\n  newer ", run)
    floor = PROJECT["project"]["requires-python"].removeprefix(">=")
    tested = {floor, *newer.split()}
    for file in (ROOT / "pyproject.toml", *ROOT.glob("packages/*/pyproject.toml")):
        named = re.findall(r"Python :: (3\.\d+)", file.read_text())
        assert set(named) == tested, file


@pytest.mark.parametrize("command", commands())
def test_each_command_is_in_the_readme(command: str) -> None:
    """No command of the command line is left out of the README."""
    assert f"trio-ai-stream {command}" in README


def test_the_gate_runs_the_readmes_test_command_verbatim() -> None:
    """`.ci/run` and the README name the same command."""
    command = "pip install uv && uv run pytest"
    assert command in README
    assert command in (ROOT / ".ci" / "run").read_text()


def documents() -> list[Path]:
    """Return every Markdown file that is read by people."""
    packages = (ROOT / "packages").glob("*/*.md")
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *packages]


def test_every_table_has_a_header() -> None:
    """An empty line within one makes plain text of all rows behind it."""
    for document in documents():
        text = re.sub(r"(?ms)^```.*?^```", "", document.read_text())
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            second = table.splitlines()[1:2]
            assert second, f"{document}: {table[:80]}"
            assert re.fullmatch(r"[|: -]+", second[0]), f"{document}: {table[:80]}"


def test_every_link_into_the_project_leads_somewhere() -> None:
    """No document links to a file that is not there."""
    for document in documents():
        for part in document.read_text().split("](")[1:]:
            target = part.split(")")[0].split("#")[0].split(" ")[0]
            if target and "://" not in target:
                assert (document.parent / target).exists(), f"{document}: {target}"


def test_every_page_is_in_the_sites_contents() -> None:
    """Those of docs/, and the documents outside it that are pages as well."""
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    site = (ROOT / "mkdocs.yml").read_text()
    outside = dict(re.findall(r"^    ([\w/-]+\.\w+): (\S+)$", site, re.MULTILINE))
    pages |= {page for page in outside.values() if page.endswith(".md")}
    contents = re.findall(r"- .*: (\S+\.md)$", site, re.MULTILINE)
    assert sorted(contents) == sorted(pages)
    assert all((ROOT / source).exists() for source in outside)


def test_every_cause_of_the_sweep_is_documented() -> None:
    """The page on the sweep has a row for each, and for no other."""
    page = (ROOT / "docs" / "cancellation-sweep.md").read_text()
    table = page.partition("| cause | what is done")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line[:3] == "| `"]
    named = {name for cell in cells for name in re.findall("`([^`]+)`", cell)}
    assert named == {*CAUSES, CALL.name, "scope@LABEL"}
