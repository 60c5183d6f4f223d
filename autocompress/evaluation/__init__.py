"""A candidate's metrics at a fidelity: the data, the task, and the evaluators."""
