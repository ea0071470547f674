"""The live board: which districts and products stand under which alert, why, and what was done about it."""
