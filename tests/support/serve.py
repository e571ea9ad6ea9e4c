"""`python -m tests.support.serve`: the `kato` command of the interpreter that runs the tests."""

from kato.cli.main import app

if __name__ == "__main__":
    app()
