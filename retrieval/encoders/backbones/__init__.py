"""Backbones: models of timm, torchvision and transformers, and the default encoder."""
