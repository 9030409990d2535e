"""Where AutoAWQ keeps its helpers."""
