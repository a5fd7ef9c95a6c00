"""Hydra configurations of training and inference."""
