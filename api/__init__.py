"""Serves: the command line, the REST service, the pages and the durable worker behind them."""
