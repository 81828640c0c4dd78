"""Backbones: feature networks that are trained beforehand and then frozen, and the features that they give."""
