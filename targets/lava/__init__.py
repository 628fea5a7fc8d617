"""Intel's Lava simulator as a target, in an interpreter of its own: `hardspike targets setup lava`."""
