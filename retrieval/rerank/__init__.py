"""Rerankers: ``(queries, gallery, neighbors) -> Neighbors``, registered in RERANKERS."""
