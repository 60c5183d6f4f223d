"""The stages of a search in order, the plan, the decision log, and what comes out."""
