"""The guides show what is in the examples, and nothing is in the examples that the guides do not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.guide import EXAMPLES, Guide

MADE = {"manage.py", "shop/wsgi.py", "orders/apps.py", "shop/__init__.py", "orders/__init__.py"}
"""What `django-admin` writes, and nobody changes."""


@pytest.mark.parametrize("framework", ["django", "fastapi", "flask"])
def test_the_files_of_a_guide_are_those_of_its_example(framework: str, tmp_path: Path) -> None:
    guide, example = Guide(framework, tmp_path), EXAMPLES / framework
    for file in guide.files:
        text = (example / file.path).read_text(encoding="utf-8")
        assert text.endswith(file.text) if file.appended else text == file.text, file.path
    shown = {file.path for file in guide.files}
    there = {path.relative_to(example).as_posix() for path in example.rglob("*") if path.is_file()}
    assert {each for each in there - shown - MADE if "__pycache__" not in each and "migrations" not in each} == set()
