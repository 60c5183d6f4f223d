"""How zeros may be laid out in a weight; one file per pattern."""
