"""A summary and its scores -> what a person looks at and a program loads.

In: ``Scores`` and a summary. Out: a table, JSON, Parquet, an HTML page, pictures of views, written whole or not at all.
``evaluated`` runs the pipeline and reports what came of it.
"""
