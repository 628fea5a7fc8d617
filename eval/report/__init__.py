"""`hardspike eval report`: all that is measured about a model, on one page."""
