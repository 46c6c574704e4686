"""What is deployed: bundles, and the runtimes that execute them. Never imports torch."""
