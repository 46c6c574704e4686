"""What fills a region: classical anonymizers, and generators that run a bundle."""
