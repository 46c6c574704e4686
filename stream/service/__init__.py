"""Several streams as a service: the processes, and the page, metrics and API that show and change them."""
