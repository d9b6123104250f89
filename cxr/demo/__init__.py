"""Synthetic sources: cartoons of chest radiographs in the layouts, formats and faults of the real ones."""

from cxr.demo.layouts import draw_source

__all__ = ["draw_source"]
