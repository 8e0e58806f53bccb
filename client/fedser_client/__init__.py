"""The data holder's node: it fetches, adapts, answers orders that its policy allows, and can leave again."""
