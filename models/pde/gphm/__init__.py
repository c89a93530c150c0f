"""The method of a paper as it is, its problems, and its published errors beside ours.

Source: Fang et al. (2024), "Solving high frequency and multi-scale PDEs with Gaussian
processes" (GP-HM), arXiv 2311.04465.
"""
