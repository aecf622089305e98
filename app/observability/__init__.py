"""What the house says about itself. Owns logging; must never see a number, a text or a secret."""
