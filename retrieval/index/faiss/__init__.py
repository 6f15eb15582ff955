"""An index of any of faiss's factory types."""
