"""The guests that stand for those of published figures, beside the presets."""
