"""The provider's node. Rounds over a network are not part of this release; see ARCHITECTURE.md."""
