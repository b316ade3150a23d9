"""The micro PaLI of the models' tests."""

from ..models.conftest import make_pali, micro

__all__ = ["make_pali", "micro"]
