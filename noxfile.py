#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""The checks of the Makefile in nox's own environments, over several Pythons: `nox -s tests-3.12 -- -k conv2d`."""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"


@nox.session
def lint(session: nox.Session) -> None:
    """Run what `make lint` runs."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests of `make test`."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", "--dist", "worksteal", "-m", "not slow", *session.posargs)


@nox.session(default=False)
def tests_all(session: nox.Session) -> None:
    """Run every test, as `make test-all` does."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the pages of docs/ without MathJax of their own: `make docs` adds it."""
    session.install("-e", ".[docs]")
    out = session.create_tmp()
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "--builder", "html", "--conf-dir", "docs", ".", out)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the sdist and the wheel in dist/."""
    session.install("build")
    session.run("python", "-m", "build")


if __name__ == "__main__":
    nox.main()
