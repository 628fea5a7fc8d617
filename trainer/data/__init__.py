"""Event data: recordings, frames, splits; one file a source."""
