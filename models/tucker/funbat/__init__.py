"""The data of a paper, our fits of them, and the errors of its authors' code beside ours.

Source: Fang et al. (2024), "Functional Bayesian Tucker decomposition for continuous-indexed
tensor data", arXiv 2311.04829.
"""
