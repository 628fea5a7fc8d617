"""Operations, counted."""
