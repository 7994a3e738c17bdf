"""The commands of `unsmear`, by subject. Heavy imports stand inside them."""
