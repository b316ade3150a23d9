"""What the builders of public datasets share: their official files, their images, their records."""
