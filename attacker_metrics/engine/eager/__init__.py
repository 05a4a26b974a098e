"""The engine in plain torch operations, the reference of the other backends.

In: two batches and a program. Out: scores, and what the backward pass needs.
"""
