"""Rounding, scaling, fake quantisation, surgery, weight geometry. Import the modules."""
