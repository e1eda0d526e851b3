"""Rounding, scaling, fake quantisation, surgery and weight geometry. Import the modules, not this package."""
