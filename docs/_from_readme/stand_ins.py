"""A hook of mkdocs: text of the former README in place of pages that are still being written.

Merge each page here with the page that it stands in for, then delete this folder and its line in
mkdocs.yml.
"""

import pathlib
from typing import Any

from mkdocs.structure.files import File, Files

FOLDER = pathlib.Path(__file__).parent
PAGES = {
    "install.md": "guides",
    "images.md": "guides",
    "own_data.md": "guides",
    "prompts.md": "guides",
    "public_backbones.md": "guides",
    "metrics.md": "reference",
}


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Adds a stand-in for every page that is not there."""
    for name, folder in PAGES.items():
        if files.get_file_from_path(f"{folder}/{name}") is None:
            text = (FOLDER / name).read_text()
            files.append(File.generated(config, f"{folder}/{name}", content=text))
    if files.get_file_from_path("evidence/prompts.md") is None:
        files.append(File.generated(config, "evidence/prompts.md", content="# Prompts\n"))
    return files
