"""Search: studies, strategies and executors. The only room that imports optuna and ray.

Import the names from their own modules: ``autocompress.search.study``,
``autocompress.search.store``, ``autocompress.search.strategies``,
``autocompress.search.executors``.
"""
