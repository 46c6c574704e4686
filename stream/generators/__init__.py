"""What fills a region: classical anonymizers now."""
