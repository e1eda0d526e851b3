"""altgrad-bench: which 8-bit format gains most from manifold-aware weight updates?"""
