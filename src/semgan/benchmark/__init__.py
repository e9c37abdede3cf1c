"""``semgan benchmark``: methods x label counts x seeds x test sets under the same conditions, cell by cell.

grid       what is asked for: GRID.yaml, checked           cells     one folder per cell, and its state
rows       methods and variants of them, their budgets
training   a cell's training under its budget               fairness  what training may not open, and equal conditions
run        the verb                                         work      a cell from data to scores
tables     tables, comparisons, sheets of the results
"""
