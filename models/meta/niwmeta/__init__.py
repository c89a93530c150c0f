"""Problems with known answers for a family of many small data sets, and our fits of them.

Source: Kim & Hospedales (2024), "A hierarchical Bayesian model for few-shot meta learning",
International Conference on Learning Representations.
"""
