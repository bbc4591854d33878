"""How a cell runs over time and how its gradient comes back."""
