"""The pages: their Python runs, and their links lead somewhere."""

import pathlib
import re

import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
HAS_SNIPPETS_FOR_OTHER_TESTS = {"distributed.md"}


@by_page
def test_links(page):
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    for target in targets:
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@by_page
def test_python_runs(page, tmp_path, monkeypatch):
    if page.name in HAS_SNIPPETS_FOR_OTHER_TESTS:
        pytest.skip("test_distribution.py runs these")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the pages are for TensorFlow first")
    monkeypatch.chdir(tmp_path)
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(snippet, page.name, "exec"), {})
