"""What README and docs point to exists, and the front page is short."""

import pytest

import omni_smola

from . import pages


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_links_lead_somewhere(page):
    for target in pages.links(page):
        assert (page.parent / target).exists(), f"{pages.name(page)} links to {target}"


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_files_that_a_page_names_exist(page):
    for file in pages.files(page):
        assert (pages.ROOT / file).exists(), f"{pages.name(page)} names {file}"


def test_the_readme_is_a_front_page():
    lines = (pages.ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert "pip install -e . && python -m omni_smola.main --config=configs/pali_smola.py" in lines
    assert "pip install -e '.[test]' && pytest" in lines


def test_the_citation_is_of_this_version():
    lines = (pages.ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {omni_smola.__version__}" in lines
