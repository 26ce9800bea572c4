"""Failures sent again, none twice: select, plan, apply, and follow what became of them."""
