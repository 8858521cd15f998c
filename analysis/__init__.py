"""Reads run folders: statistics of gates, budgets, figures and the dashboard's pages. Never loads torch."""
