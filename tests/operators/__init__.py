"""Tests of the forward models."""
