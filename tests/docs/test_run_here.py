"""The links of a notebook's page that lead to where it runs, docs/run_here.py."""

import json
import pathlib
import re
from types import SimpleNamespace

import pytest
import run_here


def hrefs(html: str) -> list[str]:
    return re.findall(r'href="([^"]*)"', html)


@pytest.mark.parametrize(
    "repository", ["https://github.com/some-one/mini.fcn", "https://github.com/some-one/mini.fcn.git"]
)
def test_a_page_leads_to_the_browser_and_to_colab(repository: str) -> None:
    html = run_here.links("01_autograd", lite="../../lite", repository=repository)
    assert hrefs(html) == [
        "../../lite/notebooks/index.html?path=01_autograd.ipynb",
        "https://colab.research.google.com/github/some-one/mini.fcn/blob/main/tutorials/01_autograd.ipynb",
    ]
    assert f"git clone --depth 1 {repository} minifcn" in html


def test_what_is_not_there_has_no_link() -> None:
    assert run_here.links("01_autograd", lite=None, repository=None) == ""
    assert "Colab" not in run_here.links("01_autograd", lite="x", repository="https://example.org/some-one/minifcn")
    assert hrefs(run_here.links("01_autograd", lite=None, repository="https://github.com/a/b"))[0].startswith(
        "https://co"
    )


def test_the_site_is_found_beside_the_pages_or_at_an_address(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "docs"
    assert run_here.site("../lite", out) is None
    (tmp_path / "lite" / "notebooks").mkdir(parents=True)
    (tmp_path / "lite" / "notebooks" / "index.html").write_text("")
    out.mkdir()
    assert run_here.site("../lite", out) == "../../lite"
    assert run_here.site("https://example.org/lite/", out) == "https://example.org/lite"


def test_the_links_stand_below_the_title_of_a_notebook_and_nowhere_else() -> None:
    app = SimpleNamespace(config=SimpleNamespace(lite="https://example.org/lite"), outdir="out")
    code = {"cell_type": "code", "source": ["1"]}
    source = [json.dumps({"cells": [{"cell_type": "markdown", "source": ["# 01\n", "\n", "Text."]}, code]})]
    run_here.add(app, "tutorials/01_autograd", source)
    first, last = json.loads(source[0])["cells"]
    title, added, text = first["source"].split("\n\n")
    assert (title, text, last) == ("# 01", "Text.", code)
    assert "lite/notebooks/index.html?path=01_autograd.ipynb" in added
    source = ["# text"]
    for name in ("docs/course", "tutorials/teaching/README"):
        run_here.add(app, name, source)
    assert source == ["# text"]
