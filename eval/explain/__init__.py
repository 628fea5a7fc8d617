"""Where two runs part, and why: the first spike, its terms, and the smallest graph and input that still part."""
