"""A network of layers, and how it is built from a configuration."""

from trainer.networks.network import PRESETS, Network, NetworkConfig, build

__all__ = ["PRESETS", "Network", "NetworkConfig", "build"]
