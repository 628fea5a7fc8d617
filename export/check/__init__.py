"""The check that ends every export."""
