"""The console: pages for people who make and watch links, over the services of the API."""
