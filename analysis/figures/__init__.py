"""Plotly figures: numbers to a small named tuple of what is drawn, and that to a figure. Plotly is used only here."""
