"""Loihi's integers: limits, arithmetic, rules, cores."""
