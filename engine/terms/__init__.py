"""Terms of a meta-objective that are measured at the end of an unroll, one file each."""

from engine.terms.base import TERMS, Term, get

__all__ = ["TERMS", "Term", "get"]
