"""The compatibility layer stands before timm and torchvision are imported by the tests."""
import retrieval.registry  # noqa: F401
